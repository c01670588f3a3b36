"""What an autoscaler is asked, and what is made of its answers. A real one: tests/end_to_end/test_autoscaler.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from cluster.nodes import scaling

WANTED = [{"CPU": 2.0}, {"CPU": 2.0}]


class Autoscaler:
    """Answers a request when it has looked `looks` times at the cluster; `holds` bundles at the most."""

    def __init__(self, holds: int, looks: int = 2) -> None:
        self.holds, self.looks = holds, looks
        self.requests: list[Sequence[dict[str, float]]] = []
        self.version = 0

    def request(self, *, bundles: Sequence[dict[str, float]]) -> None:
        self.requests.append(bundles)

    def status(self) -> GetClusterStatusReply:
        self.version += 1
        said = GetClusterStatusReply()
        said.cluster_resource_state.cluster_resource_state_version = self.version
        said.autoscaling_state.last_seen_cluster_resource_state_version = self.version - self.looks
        if len(self.requests[-1]) > self.holds:
            said.autoscaling_state.infeasible_cluster_resource_constraints.add()
        return said


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Autoscaler:
    made = Autoscaler(holds=2)
    monkeypatch.setattr("ray.autoscaler.v2.utils.is_autoscaler_v2", lambda **_: True)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", made.request)
    monkeypatch.setattr(scaling, "_status", made.status)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


def test_what_it_can_place_could_come(there: Autoscaler) -> None:
    assert scaling.could_grow(WANTED)
    assert not scaling.could_grow([*WANTED, {"CPU": 2.0}])


def test_what_was_asked_is_taken_back(there: Autoscaler) -> None:
    scaling.could_grow(WANTED)
    assert there.requests == [WANTED, []]


def test_one_that_never_answers_is_not_waited_for_and_its_request_is_taken_back(there: Autoscaler) -> None:
    there.looks = 1_000_000_000
    assert not scaling.could_grow(WANTED, seconds=0.05)
    assert there.requests == [WANTED, []]


def test_without_one_nobody_is_asked(there: Autoscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.autoscaler.v2.utils.is_autoscaler_v2", lambda **_: False)
    assert not scaling.could_grow(WANTED)
    assert there.requests == []
