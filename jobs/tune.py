"""The sweep: Ray Tune over dotted keys of the spec, trials on the training loop as it is.

A trial runs in its own process, with further workers beside it when `sweep.workers` says so (`sweep/group.py`).
What comes of a trial is kept as it ends, so a sweep that was interrupted goes on where it was (`sweep/record.py`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from cluster.console import Meter, meter, say
from cluster.errors import TrainingError
from cluster.storage import Storage
from cluster.tracking import Run

from .loop import Work
from .spec import Spec
from .sweep import group, importance
from .sweep.group import alone
from .sweep.points import Points, name, wanted
from .sweep.record import DIVERGED, Kept, Swept, Trial

__all__ = ["Swept", "Trial", "alone", "log", "sweep"]

METRIC = "validation_loss"


def sweep(job: Work, storage: Storage, run: Run) -> Swept:
    """Run `spec.sweep` over the job. Ray must be connected. Raises TrainingError."""
    spec = job.spec
    kept = Kept.of(job, storage)
    known = kept.trials()
    missing = max(0, wanted(spec) - len(known))
    if known:
        say(f"{len(known)} trials are known from before ({storage.url(kept.place)}), {missing} are to run")
    ran = _run(job, kept, known, missing, run) if missing else ()
    trials = (*known, *ran)
    swept = Swept(trials, importance.measure(spec, trials))
    log(swept, run)
    return swept


def _run(job: Work, kept: Kept, known: Sequence[Trial], missing: int, run: Run) -> tuple[Trial, ...]:
    from ray import tune

    spec = job.spec
    points = Points(spec, known)
    small = _small(job)
    scaling = small.spec.scaling
    reserved = group.bundles(scaling.most_workers, scaling.cpus_per_worker, gpu=scaling.use_gpu)
    with meter("sweep", missing) as bar:
        ended = _recorder(spec, points, kept, bar)
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, job=small), tune.PlacementGroupFactory(reserved)),
            tune_config=tune.TuneConfig(
                num_samples=missing,
                scheduler=scheduler(spec, known),
                search_alg=_searcher(points),
                max_concurrent_trials=spec.sweep.concurrent,
            ),
            run_config=tune.RunConfig(
                name=run.id, storage_path=kept.storage.url("checkpoints"), callbacks=[ended], verbose=0
            ),
        ).fit()
    if len(ended.trials) < missing and not points.exhausted:  # Tune answers Ctrl-C by an orderly end
        raise TrainingError(
            f"interrupted after {len(ended.trials)} of {missing} trials",
            where=f"run {run.id}",
            mend="the same command goes on from there",
        )
    return tuple(ended.trials)


def _small(job: Work) -> Work:
    """A trial's work: its workers, the sweep's epochs and share of the rows, no early stop of its own."""
    spec = job.spec
    rows = pd.RangeIndex(len(job.train)).to_series().sample(frac=spec.sweep.share, random_state=spec.training.seed)
    trial = spec.with_values({"scaling.workers": spec.sweep.workers, "training.patience": 10**6})
    stage = 0 if spec.sweep.workers == 1 else job.zero_stage
    return replace(job, spec=trial, train=job.train.only(rows), epochs=spec.sweep.epochs, zero_stage=stage)


def _trial(values: dict[str, Any], job: Work) -> None:
    """What Tune runs in each trial's process."""
    from ray import tune

    best = float("inf")

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:  # noqa: ARG001 - trials keep no weights
        nonlocal best
        best = min(best, metrics[METRIC])
        tune.report(metrics | {METRIC: best})

    group.run(job.under(job.spec.with_values(values)), report)


def scheduler(spec: Spec, known: Sequence[Trial] = ()) -> Any:
    """ASHA that has seen what known trials did at its rungs, or one that stops nobody."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if spec.sweep.scheduler == "none":
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


def _searcher(points: Points) -> Any:
    from ray.tune.search import Searcher

    class Next(Searcher):  # type: ignore[misc]  # Ray is untyped here
        def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
            point = points.next()
            return Searcher.FINISHED if point is None else point

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The recorder tells the points what came of them."""

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()  # nothing of Tune's own state is gone back to

        def restore(self, checkpoint_path: str) -> None: ...

    return Next()


def _recorder(spec: Spec, points: Points, kept: Kept, bar: Meter) -> Any:
    """Makes a Trial of each that ends, keeps it at once, and tells the points and the bar."""
    from ray import tune

    class Recorder(tune.Callback):  # type: ignore[misc]  # Ray is untyped here
        def __init__(self) -> None:
            self.trials: list[Trial] = []
            self._reports: dict[str, list[dict[str, Any]]] = {}

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:  # noqa: ARG002
            if METRIC in result:
                self._reports.setdefault(trial.trial_id, []).append(dict(result))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
            self._end(trial, "")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
            # Not trial.get_error(), which reads the storage root, where Tune has not brought it yet.
            self._end(trial, Path(trial.error_file).read_text().strip().splitlines()[-1])

        def _end(self, trial: Any, error: str) -> None:
            made = outcome(spec, trial.config, self._reports.pop(trial.trial_id, []), error)
            self.trials.append(made)
            kept.write(made)
            points.told(made)
            losses = [t.validation_loss for t in self.trials if t.validation_loss is not None]
            bar.update(len(self.trials), made.error or f"best validation loss {min(losses):.3f}")

    return Recorder()


def outcome(spec: Spec, point: dict[str, Any], reports: Sequence[dict[str, Any]], error: str) -> Trial:
    """What a trial came to by its reports; `error` is why it broke off."""
    last = reports[-1] if reports else {}
    loss, epochs = last.get(METRIC), float(last.get("epoch", 0.0))
    if not error:
        error = "ended without a report" if loss is None else "" if math.isfinite(loss) else DIVERGED
    return Trial(
        id=name(point),
        values=dict(point),
        validation_loss=None if error else loss,
        validation_accuracy=last.get("validation_accuracy"),
        epochs=epochs,
        status="failed" if error else ("finished" if epochs >= spec.sweep.epochs else "stopped"),
        error=error,
        steps=int(last.get("step", 0)),
        losses=tuple((float(r["epoch"]), float(r[METRIC])) for r in reports if math.isfinite(r[METRIC])),
    )


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
