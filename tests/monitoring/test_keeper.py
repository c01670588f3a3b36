"""A watch that a real cluster keeps: started by a job, killed, started anew by Ray, ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from cluster.errors import ClusterError
from cluster.settings import Settings
from cluster.store.lease import Lease
from cluster.store.tracking import Tracker
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import keeper

pytestmark = pytest.mark.ray


def until(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.2)
    return answer


def test_the_cluster_keeps_a_watch_that_is_killed_until_it_is_let_go(ray_session: str, tmp_path, spec: Spec):
    place = Place.from_settings(Settings(storage=str(tmp_path / "store"), address=ray_session))
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:
        place.registry.register(spec.name, run.id, str(tmp_path), {})
    place.registry.promote(spec.name, 1)
    lease = Lease(place.storage, f"watch-{spec.name}", "the test", 60)

    def leader(but: str = "") -> str | None:
        term = lease.current()
        return term.holder if term is not None and term.holder != but else None

    keeper.keep(spec, place, ray_session)
    first = until(leader)
    keeper.keep(spec, place, ray_session)  # it runs already: nothing is started
    pid = int(first.split("/")[1])
    assert leader() == first
    os.kill(pid, signal.SIGKILL)
    # Ray starts it anew; the term of the one that died has to pass.
    assert int(until(lambda: leader(but=first)).split("/")[1]) != pid
    keeper.let_go(spec, place, ray_session)
    assert leader() is None
    with pytest.raises(ClusterError, match="could not do `watch --stop`"):
        keeper.let_go(spec, place, ray_session)
