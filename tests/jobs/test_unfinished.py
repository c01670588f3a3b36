from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.session import PROJECT
from cluster.store.lease import Lease
from cluster.store.tracking import Run, Tracker
from jobs import pipeline, specfile
from jobs.data import preparation
from jobs.forgetting.ewc import Consolidation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import train, unfinished
from jobs.training.loop import Work
from jobs.training.unfinished import Unfinished
from tests import tiny

from . import undisturbed


@pytest.fixture
def job(spec: Spec, place: Place) -> Work:
    return train.work(spec, preparation.prepare(spec, place.storage), place.storage)


def of(job: Work, **values: Any) -> Work:
    return replace(job, spec=job.spec.with_values({key.replace("__", "."): value for key, value in values.items()}))


@pytest.mark.parametrize(
    "change",
    [
        lambda job: of(job, scaling__workers=1),
        lambda job: of(job, scaling__workers=[1, 2]),
        lambda job: of(job, training__micro_batch_size=4, training__max_failures=9),
        lambda job: replace(of(job, training__zero_stage=3), zero_stage=3),
        lambda job: of(job, serving__replicas=5),
    ],
)
def test_the_same_training_on_other_workers_is_the_same(job: Work, change: Callable[[Work], Work]) -> None:
    assert unfinished.identity(change(job)) == unfinished.identity(job)


def test_another_training_is_another(job: Work, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    others = [
        job,
        of(job, training__learning_rate=0.5),
        of(job, method__rank=2),
        of(job, training__seed=7),
        replace(job, train=job.train.only(range(1, len(job.train)))),
        replace(job, train=job.train.only(range(len(job.train))[::-1])),
        replace(job, validation=job.validation.only(range(1, len(job.validation)))),
        replace(job, epochs=1),
        replace(job, start=str(tmp_path)),
        replace(job, class_weights=(1.0, 2.0)),
        replace(job, consolidation=Consolidation(1.0, job.train)),
        replace(job, consolidation=Consolidation(1.0, job.train.only(range(1, len(job.train))))),
    ]
    assert len({unfinished.identity(one) for one in others}) == len(others)


def cut_off(known: Unfinished, job: Work, found: list[Run]) -> None:
    """Ctrl-C after step 7."""
    with known.run(job, "train", partial(known.tracker.run, "train", {}, {})) as run:
        found.append(run)
        run.log_metrics({"step": 7}, step=7)
        raise KeyboardInterrupt


def test_a_run_that_was_cut_off_goes_on_and_one_that_was_done_does_not(
    job: Work, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(place.settings, "tiny")
    runs: list[Run] = []
    known, new = Unfinished(place.storage, tracker), partial(tracker.run, "train", {}, {})
    with pytest.raises(KeyboardInterrupt):
        cut_off(known, job, runs)
    assert tracker.runs()[0]["status"] == "FAILED"
    with known.run(job, "retrain", new) as other:
        assert other.id != runs[0].id
    with known.run(job, "train", new) as again:
        assert again.id == runs[0].id
        assert [run["status"] for run in tracker.runs() if run["id"] == again.id] == ["RUNNING"]
    assert f"goes on with run {again.id}, which was cut off after step 7" in capsys.readouterr().err
    assert {run["status"] for run in tracker.runs()} == {"FINISHED"}
    with known.run(job, "train", new) as third:
        assert third.id != again.id
    assert place.storage.list("unfinished") == place.storage.list("leases") == []


def test_who_wants_it_fresh_begins_anew(job: Work, place: Place) -> None:
    tracker = Tracker(place.settings, "tiny")
    runs: list[Run] = []
    with pytest.raises(KeyboardInterrupt):
        cut_off(Unfinished(place.storage, tracker), job, runs)
    fresh = Unfinished(place.storage, tracker, fresh=True)
    with fresh.run(job, "train", partial(tracker.run, "train", {}, {})) as second:
        assert second.id != runs[0].id


def test_a_run_that_somebody_works_on_is_left_to_them(
    job: Work, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(unfinished, "TERM_SECONDS", 1.0)
    tracker = Tracker(place.settings, "tiny")
    known = Unfinished(place.storage, tracker)
    with known.run(job, "train", partial(tracker.run, "train", {}, {})) as first:
        with known.run(job, "train", partial(tracker.run, "train", {}, {})) as second:
            assert second.id != first.id
        assert place.storage.list("unfinished") != []
    assert "runs elsewhere at this moment" in capsys.readouterr().err


def test_a_dead_holder_is_waited_for_no_longer_than_its_term(place: Place) -> None:
    assert Lease(place.storage, "unfinished-x", "the dead", 1.0).acquire()
    began = time.monotonic()
    with unfinished._leading(Lease(place.storage, "unfinished-x", "the next", 1.0)) as leads:
        assert leads
    assert time.monotonic() - began < 5


TRAINS = """
import sys
from pathlib import Path
from cluster.session import connect
from cluster.settings import Settings
from jobs import pipeline, specfile

spec, place = specfile.load(Path(sys.argv[1])), pipeline.Place.from_settings(Settings(storage=sys.argv[2]))
with connect(place.settings):
    pipeline.train_and_publish(spec, pipeline.prepare(spec, place), place)
"""


@pytest.mark.ray
def test_a_killed_driver_is_followed_by_whoever_trains_the_same(
    ray_session: str, process_group: None, spec: Spec, place: Place, tmp_path: Path
) -> None:
    """Two workers in ZeRO stage 1 under a driver that is killed, then one in stage 2: one run, as if nothing had been."""
    import ray

    spec = tiny.still(spec, tmp_path / "base").with_values(
        {
            "training.epochs": 15,
            "training.patience": 10**6,
            "training.learning_rate": 0.002,
            "training.zero_stage": 1,
        }
    )
    file, store = tmp_path / "spec.yaml", Path(place.settings.storage)
    file.write_text(specfile.dump(spec))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": str(PROJECT)}
    driver = subprocess.Popen([sys.executable, "-c", TRAINS, str(file), str(store)], env=environment)
    end = time.monotonic() + 90
    while (before := _reported(place)) < 4 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    alone = spec.with_values({"scaling.workers": 1, "training.zero_stage": 2})
    published = pipeline.train_and_publish(alone, preparation.prepare(alone, place.storage), place)
    tracker = Tracker(place.settings, spec.name)
    (run,) = tracker.runs()
    assert run["status"] == "FINISHED"
    assert published.version.run == run["id"]
    resumed = tracker.open(run["id"])
    curve = train.curve(resumed)
    assert [row["step"] for row in curve] == [*range(4, 7 * 15, 4), 7 * 15]
    workers = resumed.history("workers")
    assert len(workers) <= len(curve) + 1  # at most the last report was made once more
    assert sum(value == 2 for value in dict(workers).values()) >= before >= 4
    assert dict(workers)[7 * 15] == 1
    undisturbed.compare(curve, spec, place)
    assert place.storage.list("unfinished") == []


def _reported(place: Place) -> int:
    """Reports of the run that is noted down, which is there before MLflow's tables can be asked."""
    notes = place.storage.list("unfinished")
    if not notes:
        return 0
    run = place.storage.read_json(f"unfinished/{notes[0]}")["run"]
    return len(train.curve(Tracker(place.settings, "tiny").open(run)))
