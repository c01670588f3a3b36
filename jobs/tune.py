"""The sweep: Ray Tune over dotted keys of the spec, trials on the training loop as it is.

Trials train in one stage (`sweep/stage.py`), or in one a rung (`sweep/halving.py`). Each runs in its own process, with
further workers beside it when `sweep.workers` says so (`sweep/group.py`). What comes of it is kept as it ends, so a
sweep that was interrupted goes on where it was (`sweep/record.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from cluster.console import meter, say
from cluster.store.storage import Storage
from cluster.store.tracking import Run
from jobs.training.loop import Work

from .spec import Spec
from .sweep import halving, importance, stage
from .sweep.group import alone
from .sweep.points import Points, wanted
from .sweep.record import METRIC, Kept, Swept, Trial
from .sweep.stage import Ended, Stage

__all__ = ["METRIC", "Swept", "Trial", "alone", "log", "sweep"]


def sweep(job: Work, storage: Storage, run: Run) -> Swept:
    """Run `spec.sweep` over the job. Ray must be connected. Raises TrainingError."""
    spec = job.spec
    kept = Kept.of(job, storage)
    known = kept.trials()
    if known:
        missing = max(0, wanted(spec) - len(known))
        say(f"{len(known)} trials are known from before ({storage.url(kept.place)}), {missing} are to begin")
    train = partial(stage.train, _small(job), kept, run, scheduler(spec, known))
    halved = spec.sweep.scheduler == "halving"
    trials = halving.sweep(spec, kept, known, train) if halved else _at_once(job, kept, known, train)
    swept = Swept(trials, importance.measure(spec, trials))
    log(swept, run)
    return swept


def _at_once(job: Work, kept: Kept, known: Sequence[Trial], train: Callable[[Stage, Ended], None]) -> tuple[Trial, ...]:
    """One stage, in which the scheduler stops whom it likes."""
    points, missing = Points(job.spec, known), max(0, wanted(job.spec) - len(known))
    if not missing:
        return tuple(known)
    made: list[Trial] = []
    with meter("sweep", missing) as bar:

        def ended(trial: Trial) -> None:
            made.append(trial)
            kept.write(trial)
            points.told(trial)
            losses = [t.validation_loss for t in made if t.validation_loss is not None]
            bar.update(len(made), trial.error or f"best validation loss {min(losses):.3f}")

        train(Stage(job.spec.sweep.epochs, missing, points.next), ended)
    return (*known, *made)


def _small(job: Work) -> Work:
    """A trial's work: its workers, the sweep's epochs and share of the rows, no early stop of its own."""
    spec = job.spec
    rows = pd.RangeIndex(len(job.train)).to_series().sample(frac=spec.sweep.share, random_state=spec.training.seed)
    trial = spec.with_values({"scaling.workers": spec.sweep.workers, "training.patience": 10**6})
    stage = 0 if spec.sweep.workers == 1 else job.zero_stage
    return replace(job, spec=trial, train=job.train.only(rows), epochs=spec.sweep.epochs, zero_stage=stage)


def scheduler(spec: Spec, known: Sequence[Trial] = ()) -> Any:
    """ASHA that has seen what known trials did at its rungs, or one that stops nobody in the middle of a stage."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if spec.sweep.scheduler != "asha":
        return FIFOScheduler()
    asha = ASHAScheduler(
        time_attr="epoch",  # not the count of reports: an epoch of few steps has fewer than the spec asks for
        metric=METRIC,
        mode="min",
        max_t=spec.sweep.epochs,
        grace_period=spec.sweep.grace_epochs,
        reduction_factor=spec.sweep.reduction_factor,
    )
    for trial in known:
        before = SimpleNamespace(trial_id=trial.id)
        asha.on_trial_add(None, before)
        for epoch, loss in trial.losses:
            asha.on_trial_result(None, before, {"epoch": epoch, METRIC: loss})
    return asha


def log(swept: Swept, run: Run) -> None:
    """The table, each trial's loss, and the picture of what mattered, with a run."""
    for step, trial in enumerate(swept.trials):
        if trial.validation_loss is not None:
            run.log_metrics({f"trial_{METRIC}": trial.validation_loss, "trial_epochs": trial.epochs}, step=step)
    run.log_json(asdict(swept), "sweep.json")
    if swept.importance.shares:
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "sweep-importance.png"
            importance.draw(swept.importance, picture)
            run.log_file(picture)
