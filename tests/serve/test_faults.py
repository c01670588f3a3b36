"""Faults on real Ray Serve over real HTTP under steady load; only the model is a fake."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cluster.settings import Settings
from cluster.store.registry import Registry
from cluster.store.storage import Storage
from jobs.spec import Spec
from serve import rollout
from serve.log.predictions import prediction_log, tables
from serve.log.spool import adopt

from . import fakes
from .load import MODEL, Load, processes, register

pytestmark = pytest.mark.ray


def served(url: str) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]
    return found


def logged_once(settings: Settings, acknowledged: list[str]) -> None:
    """The server has ended: all that was acknowledged is in the table, and nothing twice."""
    print("left in spools:", adopt(settings.spool_root, tables(Storage.from_settings(settings))))
    log = prediction_log(Storage.from_settings(settings)).read(columns=["prediction_id"])
    logged = Counter(log["prediction_id"].to_pylist())
    assert set(acknowledged) <= set(logged)
    assert max(logged.values()) == 1


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(storage=str(tmp_path / "store"))


def test_what_dies_and_what_is_promoted_costs_no_request(
    ray_session: str, spec: Spec, settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(settings)
    for number, (share, golden) in enumerate([(0.6, None), (0.7, None), (0.8, 0.2)], start=1):
        assert register(settings, tmp_path / str(number), share, golden) == number
    registry.promote(MODEL, 1)
    url = rollout.start(spec.with_values({"serving.replicas": 2}), settings, load=fakes.load)
    # Clients that ask once: whatever a swap costs is seen.
    with Load(url) as plain:
        plain.more(50)
        registry.promote(MODEL, 2)
        plain.until(lambda: plain.acknowledged[-1][1] == 2)
        registry.promote(MODEL, 3)
        plain.until(lambda: bool(served(url)["failed"]))
        plain.more(50)
        registry.promote(MODEL, 1)
        plain.until(lambda: plain.acknowledged[-1][1] == 1)
        plain.more(50)
    assert plain.failures == []
    # A replica dies, and requests that were on their way to it are sent to the other.
    with Load(url) as bereft:
        bereft.more(50)
        processes("ServeReplica")[0].kill()
        bereft.more(100)
    # What cannot be sent again is an answer of which a part had been sent.
    assert all(failure.startswith("RemoteProtocolError: peer closed") for failure in bereft.failures)
    assert len(bereft.failures) <= 1
    # The proxy dies: nobody listens until there is a new one, and rehone's own client waits.
    with Load(url, patient=True) as patient:
        for victim in ("haproxy -db", "HAProxyManager"):
            patient.more(50)
            processes(victim)[0].kill()
            patient.more(50)
            processes("ServeReplica")[0].kill()
            patient.more(50)
    assert patient.failures == []
    rollout.stop()
    logged_once(settings, plain.ids + bereft.ids + patient.ids)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB for spools."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=False)
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_slow_version_a_storage_that_is_gone_and_a_full_disk_are_said_and_lose_nothing(
    ray_session: str, spec: Spec, tmp_path: Path, small_disk: Path
) -> None:
    settings = Settings(storage=str(tmp_path / "store"), spool=str(small_disk))
    registry = Registry(settings)
    register(settings, tmp_path / "1", 0.6)
    fakes.write_version(tmp_path / "2", 0.7)
    (tmp_path / "2" / "seconds.txt").write_text("4")
    register(settings, tmp_path / "2", 0.7)
    registry.promote(MODEL, 1)
    url = rollout.start(spec.with_values({"serving.timeout_seconds": 2.0}), settings, load=fakes.load)
    with Load(url) as load:
        load.more(50)
        registry.promote(MODEL, 2)
        load.until(lambda: load.statuses[504] > 0)
        registry.promote(MODEL, 1)
        load.until(lambda: load.acknowledged[-1][1] == 1)
        load.more(50)
        assert set(load.statuses) == {200, 504}
        said = re.compile("504, .*no answer within 2 s; one may be in the prediction log")
        assert all(said.match(failure) for failure in load.failures)
        load.failures.clear()
        # The log's storage goes; answers go on until the disk that they are spooled on is full.
        log, away = tmp_path / "store" / "tables", tmp_path / "away"
        log.rename(away)
        log.touch()
        load.more(100)
        assert load.failures == []
        load.until(lambda: load.statuses[503] > 20)
        assert all(
            failure.startswith('503, Retry-After 1: {"detail":"the prediction log cannot be written: ')
            for failure in load.failures
        )
        assert os.statvfs(small_disk).f_bavail == 0
        # It comes back, and all that waited is moved.
        log.unlink()
        away.rename(log)
        load.more(200)
        failed = len(load.failures)
        load.more(100)
        assert len(load.failures) == failed
    rollout.stop()
    logged_once(settings, load.ids)
