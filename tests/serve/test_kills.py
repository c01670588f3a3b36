from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cluster.settings import Settings
from cluster.store.registry import Registry
from cluster.store.storage import Storage
from jobs.spec import Spec
from serve import rollout
from serve.log.predictions import FEEDBACK, PREDICTIONS, prediction_log, tables
from serve.log.spool import adopt

from . import dying, fakes
from .load import MODEL, NODE, Load, kill, register


def lines(path: Path) -> list[str]:
    """Whole lines: an acknowledgement that was cut off has reached nobody."""
    return [line.strip() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.long
def test_fifty_replicas_killed_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    folder, storage, told = tmp_path / "spool", Storage(str(tmp_path / "store")), tmp_path / "told"
    command = [sys.executable, "-m", "tests.serve.dying", str(folder), storage.root, str(told), "50", "0"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    adopt(folder, tables(storage))
    died = Counter(done.stdout.split("\n"))
    acknowledged = [name for path in tmp_path.glob("told.*") for name in lines(path)]
    assert sum(died.values()) > 50
    assert set(dying.POINTS) <= set(died)
    assert len(acknowledged) > 1000
    for table in (PREDICTIONS, FEEDBACK):
        logged = Counter(tables(storage)[table].read(columns=["prediction_id"])["prediction_id"].to_pylist())
        assert max(logged.values()) == 1
        if table == PREDICTIONS:
            assert set(acknowledged) <= set(logged)
    assert list(folder.iterdir()) == []


@pytest.mark.ray
def test_processes_of_ray_killed_under_http_load_lose_and_double_nothing(
    ray_session: str, spec: Spec, tmp_path: Path
) -> None:
    settings, draw = Settings(storage=str(tmp_path / "store")), random.Random(0)
    register(settings, tmp_path / "1", 0.6)
    Registry(settings).promote(MODEL, 1)
    url = rollout.start(spec.with_values({"serving.replicas": 2}), settings, load=fakes.load)
    with Load(url) as plain, Load(url, patient=True) as patient:
        for victim in ["a replica", "the controller", "HAProxy", "a replica", NODE, "its manager", "a replica"]:
            time.sleep(draw.uniform(0.0, 0.5))
            kill(victim, draw)
            patient.more(20, seconds=120)
    assert patient.failures == []
    rollout.stop()
    acknowledged, storage = plain.ids + patient.ids, Storage.from_settings(settings)
    adopt(settings.spool_root, tables(storage))
    logged = Counter(prediction_log(storage).read(columns=["prediction_id"])["prediction_id"].to_pylist())
    assert set(acknowledged) <= set(logged)
    assert max(logged.values()) == 1
