"""The asker over real HTTP and a real registry, a replica's route on a thread; only the model is a fake."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from cluster.errors import ClusterError, GateRefusedError
from cluster.session import free_port
from cluster.settings import Settings
from cluster.store.registry import ModelVersion, Registry
from jobs.pipeline import Place
from monitoring import history, promotion
from serve import endpoint
from serve.endpoint import Endpoint
from serve.engines import engine, parity
from serve.engines.engine import Engine
from serve.http.callers import Callers
from serve.http.guard import Bounds, Guard
from serve.versions import certificate, examine, witness
from serve.versions.tickets import Tickets
from serve.versions.witness import Witness
from tests import registering

from . import fakes
from .conftest import Kept

KEPT = Path("nothing is compiled of a fake")


def register(place: Place, folder: Path, share: float, golden: float | None = None) -> ModelVersion:
    fakes.write_version(folder, share, golden)
    return registering.register(place.settings, "m", folder, {})


def admit(version: ModelVersion, folder: Path) -> Engine:
    return engine.load(version, folder, fakes.load)


@contextmanager
def replica(place: Place, load: Callable[[ModelVersion, Path], Engine] = admit, model: str = "m") -> Iterator[str]:
    """What `rollout.Server` has, behind its guard with keys that nobody has, recorded as the server of the model."""
    api = FastAPI()
    api.include_router(
        witness.router(Witness(place.registry, load, KEPT, lambda v: v.model == model), Tickets(place.storage))
    )

    nobody = Callers(place.storage, 60)
    api.add_middleware(Guard, bounds=Bounds(0, 0, 0, 0.001), callers=nobody)
    server = uvicorn.Server(uvicorn.Config(api, port=(port := free_port()), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    url = f"http://127.0.0.1:{port}"
    endpoint.record(place.storage, Endpoint("m", url, None))
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One registry for all: making its database takes longer than any test."""
    return Place.from_settings(Settings(storage=str(tmp_path_factory.mktemp("examined"))))


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "_PAUSE_SECONDS", 0.01)


class Without(Registry):
    """Of a machine that is not to fetch a version's weights."""

    def download(self, version: ModelVersion) -> Path:
        raise AssertionError(f"all files of version {version.version} were asked for")


def test_a_live_replica_answers_and_the_certificate_is_kept(place: Place, tmp_path: Path) -> None:
    version = register(place, tmp_path / "1", 0.75)
    with replica(place) as url:
        made = examine.certify(replace(place, registry=Without(place.settings)), version, "torch")
    assert (made.version, made.engine, made.inputs) == (version.version, "torch", 2)
    assert (made.apart, made.replica) == (0.0, url)
    tags = place.registry.get("m", version.version).tags
    assert certificate.read(tags) == made
    assert f"parity: torch answered 2 golden inputs at most 0 from the trainer (0.001 allowed), {made.at}" in (
        said := certificate.said(tags)
    )
    assert said.endswith(f"asked of a live replica at {url}")
    assert certificate.read({}) is None
    assert certificate.said({}) == ""


def test_one_that_the_replica_refuses_is_refused_in_a_line_and_gets_no_certificate(
    place: Place, tmp_path: Path
) -> None:
    version = register(place, tmp_path / "1", 0.75, golden=0.70)
    with replica(place), pytest.raises(GateRefusedError) as refused:
        examine.certify(place, version, "torch")
    said = str(refused.value)
    wanted = f"m version {version.version}: answers the golden inputs 0.05 away from its trainer"
    assert said.startswith(f"a live replica refuses it: {wanted}")
    assert "\n" not in said
    assert refused.value.exit_code == 3
    assert certificate.read(place.registry.get("m", version.version).tags) is None


def test_a_replica_is_not_taken_at_its_word(place: Place, tmp_path: Path) -> None:
    """One that holds other files than the registry has, and finds itself in order."""
    version = register(place, tmp_path / "1", 0.75)
    stale = fakes.write_version(tmp_path / "stale", 0.6)
    wanted = rf"m version {version.version}: answers 0\.15 away from its trainer by torch \(allowed: 0\.001\)"
    with replica(place, lambda v, _: admit(v, stale)), pytest.raises(GateRefusedError, match=wanted):
        examine.certify(place, version, "torch")


def test_one_that_breaks_as_it_is_loaded_is_refused_and_the_replica_lives(place: Place, tmp_path: Path) -> None:
    broken, good = register(place, tmp_path / "1", 0.75), register(place, tmp_path / "2", 0.75)

    def load(version: ModelVersion, folder: Path) -> Engine:
        if version.version == broken.version:
            raise OSError("truncated weights")
        return admit(version, folder)

    with replica(place, load):
        with pytest.raises(GateRefusedError, match=r"m version \d+: a live replica refuses it: truncated"):
            examine.certify(place, broken, "torch")
        assert examine.certify(place, good, "torch").replica


@pytest.mark.long
def test_a_server_that_was_killed_has_left_its_address(taught: Kept) -> None:
    """This process loads the version then, by the engine that the spec names, and says so."""
    place = taught.place
    version = place.registry.get("tiny", 1)
    endpoint.record(place.storage, Endpoint("tiny", f"http://127.0.0.1:{free_port()}", None))
    try:
        made = examine.certify(place, version, "torch")
    finally:
        endpoint.forget(place.storage, "tiny")
    assert (made.replica, made.engine, made.inputs) == ("", "torch", 8)
    assert made.apart <= made.allowed
    assert "asked of the process that judged it, as nothing served" in certificate.said(
        place.registry.get("tiny", 1).tags
    )


def test_a_server_that_does_not_answer_blocks_and_is_no_verdict(place: Place, tmp_path: Path) -> None:
    version = register(place, tmp_path / "1", 0.75)
    with replica(place, model="another"), pytest.raises(ClusterError, match=r"no replica answers as version \d+: 40\d"):
        examine.certify(place, version, "torch")
    assert certificate.read(place.registry.get("m", version.version).tags) is None


def test_a_replica_loads_one_version_at_a_time_and_who_asks_tries_again(place: Place, tmp_path: Path) -> None:
    version = register(place, tmp_path / "1", 0.75)
    loading, go_on, loads = threading.Event(), threading.Event(), []

    def load(version: ModelVersion, folder: Path) -> Engine:
        loads.append(version.version)
        loading.set()
        assert go_on.wait(30)
        return admit(version, folder)

    made: list[Any] = []
    with replica(place, load):
        first = threading.Thread(target=lambda: made.append(examine.certify(place, version, "torch")))
        first.start()
        assert loading.wait(30)
        with pytest.raises(ClusterError, match=r"429.*another version is being loaded"):
            examine.certify(place, version, "torch")
        assert loads == [version.version]
        go_on.set()
        first.join()
        assert examine.certify(place, version, "torch").inputs == 2
    assert [one.inputs for one in made] == [2]


def test_without_a_ticket_nothing_is_loaded(place: Place, tmp_path: Path) -> None:
    import httpx

    register(place, tmp_path / "1", 0.75)

    def load(version: ModelVersion, folder: Path) -> Engine:
        raise AssertionError("nobody may have this")

    with replica(place, load) as url:
        for headers in ({}, {"Authorization": "Bearer 1.9999999999." + "0" * 64}):
            answer = httpx.post(f"{url}/v1/models/m/parity", headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (403, "this route is for promotions, by a ticket")
        assert httpx.post(f"{url}/v1/models/m/predict").status_code == 401


def test_what_serves_already_answers_for_itself(place: Place, tmp_path: Path) -> None:
    version = register(place, tmp_path / "1", 0.75)
    serving = admit(version, tmp_path / "1")

    def load(version: ModelVersion, folder: Path) -> Engine:
        raise AssertionError("it is loaded")

    answered = Witness(place.registry, load, KEPT, lambda _: True, lambda: [serving]).answer("m", version.version)
    assert answered == {"engine": "torch", "answers": [["positive", [0.25, 0.75]]] * 2, "engines": []}
    json.dumps(answered)


def test_answers_without_probabilities_are_held_to_their_words() -> None:
    wanted = parity.Golden(["a", "b"], ["x", "y"], [[], []])
    assert parity.differing(wanted, [("x", []), ("y", [])]) == 0
    assert parity.differing(wanted, [("x", []), ("z", [])]) == 0.5, "half of the texts are others"
    assert parity.differing(wanted, [("x", [])]) == float("inf")
    assert parity.differing(parity.Golden(["a"], ["x"], [[0.5, 0.5]]), [("x", [0.5])]) == float("inf")


@pytest.mark.long
def test_the_gate_and_a_person_are_refused_one_that_disagrees(taught: Kept, tmp_path: Path) -> None:
    place, folder = taught.place, shutil.copytree(taught.folder, tmp_path / "copy")
    golden = json.loads((folder / "golden.json").read_text())
    golden["scores"][0] = golden["scores"][0][::-1]
    (folder / "golden.json").write_text(json.dumps(golden))
    first = place.registry.get("tiny", 1)
    version = place.registry.register("tiny", first.run, str(folder), first.tags)
    with pytest.raises(GateRefusedError, match="away from its trainer"):
        promotion.promote("tiny", version.version, place)
    assert place.registry.find("tiny", "champion") is None
    verdict = promotion.settle(taught.spec, place, version)
    assert not verdict.promote
    assert "away from its trainer" in verdict.reasons[0]
    assert place.registry.find("tiny", "champion") is None


@pytest.mark.long
def test_a_persons_promotion_leaves_a_certificate_that_is_told(taught: Kept) -> None:
    place = taught.place
    promotion.promote("tiny", 1, place)
    version = place.registry.champion("tiny")
    assert version.version == 1
    (told,) = (cause for cause in history.told(version, place).causes if cause.startswith("parity"))
    assert told.startswith("parity: torch answered 8 golden inputs at most")
    promoted = [e.version for e in place.registry.versions("tiny") if "champion" in e.aliases]
    assert promoted == [1]
