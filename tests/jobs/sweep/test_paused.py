"""A trial that pauses and goes on, in this process, beside one that never paused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep import group
from jobs.sweep.paused import Paused, Stretch
from jobs.sweep.record import Trial
from jobs.training import train
from jobs.training.loop import Work

pytestmark = pytest.mark.long


@pytest.fixture
def job(spec: Spec, place: Place) -> Work:
    """Three epochs of 7 steps, with dropout and a rate that falls; a report each fourth step, which no epoch ends with."""
    changes = {"training.epochs": 3, "training.patience": 100, "training.evaluations_per_epoch": 2}
    spec = spec.with_values(changes | {"scaling.workers": 1, "method.dropout": 0.1})
    return train.work(spec, preparation.prepare(spec, place.storage), place.storage)


def figures(job: Work, stretch: Stretch) -> list[dict[str, Any]]:
    """What a stretch reports, but what hangs on the clock."""
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        if checkpoint is not None:
            reports.append(
                {name: value for name, value in metrics.items() if name not in {"rows_per_second", "memory_mib"}}
            )

    group._loop(job, 0, stretch, report)
    return reports


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_trial_that_went_on_is_to_the_last_bit_as_one_that_never_paused(
    process_group: None, job: Work, place: Place, method: str
) -> None:
    job = job.under(job.spec.with_values({"method.name": method}))
    paused = Paused(place.storage, "sweeps/x/paused")
    whole = figures(job, Stretch("whole", 3, paused))
    assert [report["step"] for report in whole] == [4, 8, 12, 16, 20, 21]
    assert place.storage.list(paused.place) == []
    parts, begin = [], None
    for until, step in ((1, 8), (2, 16), (3, 21)):
        parts += figures(job, Stretch("cut", until, paused, begin, keeps=until < 3))
        begin = parts[-1]["step"]
        assert begin == step
    assert parts == whole
    assert place.storage.list(paused.place) == ["cut-16", "cut-8"]
    assert place.storage.list(f"{paused.place}/cut-8") == ["loop.json", "state-00000-of-00001.safetensors"]


def test_a_checkpoint_is_there_until_it_is_removed(place: Place, tmp_path: Path) -> None:
    paused, folder = Paused(place.storage, "sweeps/x/paused"), tmp_path / "made"
    folder.mkdir()
    for name in ("loop.json", "state-00001-of-00002.safetensors", "model.safetensors"):
        (folder / name).write_text(name)
    paused.write("a", 8, folder)
    trial = Trial("a", {}, 0.5, None, 1.0, "stopped", steps=8)
    assert paused.holds(trial)
    assert not paused.holds(Trial("a", {}, 0.5, None, 2.0, "stopped", steps=16))
    with paused.read("a", 8) as read:
        assert {path.name: path.read_text() for path in read.iterdir()} == {
            name: name for name in ("loop.json", "state-00001-of-00002.safetensors")
        }
    assert not read.exists()
    paused.remove(trial)
    paused.remove(trial)
    assert not paused.holds(trial)
