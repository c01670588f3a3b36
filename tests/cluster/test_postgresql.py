"""MLflow's tracking and registry on a real PostgreSQL: what the embedded SQLite does, many writers at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cluster.settings import Settings
from cluster.store.registry import Registry
from cluster.store.tracking import Tracker, Used


@pytest.fixture
def place(postgresql: str, tmp_path: Path) -> Settings:
    return Settings(storage=str(tmp_path / "store"), tracking_uri=postgresql)


def test_a_run_and_all_that_belongs_to_it(place: Settings, tmp_path: Path) -> None:
    tracker = Tracker(place, "whole")
    assert tracker.runs() == []
    used = Used("data", "abc123", "s3://bucket/data", {"rows": 3})
    with tracker.run("train", {"rate": "0.1"}, {"kind": "train"}, used) as run:
        for step in range(3):
            run.log_metrics({"loss": 1.0 - step / 10}, step)
        run.log_json({"x": 1}, "x.json")
    (found,) = tracker.runs(dataset="abc123")
    assert (found["status"], found["params"]["rate"], found["metrics"]["loss"]) == ("FINISHED", "0.1", 0.8)
    assert tracker.open(run.id).history("loss") == [(0, 1.0), (1, 0.9), (2, 0.8)]
    # Without a server the files are on the storage root, not where the process happens to run.
    assert run.artifact_uri.startswith((tmp_path / "store" / "mlflow" / "artifacts").as_uri())
    with pytest.raises(ZeroDivisionError), tracker.run("train", {}, {}):
        raise ZeroDivisionError
    assert {one["status"] for one in tracker.runs()} == {"FINISHED", "FAILED"}


def test_versions_move_by_alias(place: Settings) -> None:
    registry = Registry(place)
    with Tracker(place, "moves").run("train", {}, {}) as run:
        pass
    first, second = (registry.register("moves", run.id, run.artifact_uri, {"n": n}) for n in ("1", "2"))
    registry.promote("moves", first.version)
    registry.promote("moves", second.version)
    assert (registry.champion("moves").version, registry.previous("moves").version) == (2, 1)
    registry.promote("moves", registry.previous("moves").version)
    assert registry.champion("moves").tags["n"] == "1"


def test_writers_at_once_lose_nothing(place: Settings) -> None:
    tracker = Tracker(place, "many")
    with tracker.run("first", {}, {}):
        pass

    def write(writer: int) -> None:
        for n in range(5):
            with tracker.run(f"{writer}-{n}", {"writer": writer}, {}) as run:
                run.log_metrics({"n": n})

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = tracker.runs(limit=100)
    assert len(found) == 21
    assert {run["status"] for run in found} == {"FINISHED"}
