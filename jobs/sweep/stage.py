"""One run of Ray Tune: trials that train side by side to the same epoch, and what comes of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import TrainingError
from cluster.store.tracking import Run
from jobs.spec import Spec
from jobs.training.loop import Work

from . import group
from .paused import Paused, Stretch
from .points import name
from .record import DIVERGED, FAILED, METRIC, Kept, Trial

Point = dict[str, Any]
Ended = Callable[[Trial], None]


@dataclass(frozen=True)
class Stage:
    """Which trials train, and until when."""

    until: int
    """Epochs, counted from a trial's beginning."""
    trials: int
    points: Callable[[], Point | None]
    """The next of them; None when there are no more."""
    known: Mapping[str, Trial] = field(default_factory=dict)
    """Those of the trials that have a record, by id: they go on from their checkpoint, if `paused` holds one."""
    paused: Paused | None = None
    keeps: bool = False
    """Whether they leave a checkpoint where they end."""


def train(job: Work, kept: Kept, run: Run, scheduler: Any, stage: Stage, ended: Ended) -> None:
    """Train a stage's trials on Ray, which must be connected, and tell of each that has ended.

    Raises TrainingError when it was interrupted before all of them had.
    """
    from ray import tune

    recorder, searcher = _recorder(job.spec, stage.known, ended), _searcher(stage.points)
    scaling = job.spec.scaling
    reserved = [scaling.bundle] * scaling.most_workers  # the trial's own process is in the first
    told = {"job": job, "until": stage.until, "known": stage.known, "paused": stage.paused, "keeps": stage.keeps}
    tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, **told), tune.PlacementGroupFactory(reserved)),
        tune_config=tune.TuneConfig(
            num_samples=stage.trials,
            scheduler=scheduler,
            search_alg=searcher,
            max_concurrent_trials=job.spec.sweep.concurrent,
            reuse_actors=scaling.most_workers == 1,  # most of a short trial is what its process imports
        ),
        run_config=tune.RunConfig(
            name=f"{run.id}-{stage.until}",
            storage_path=kept.storage.url("checkpoints"),
            callbacks=[recorder],
            verbose=0,
        ),
    ).fit()
    if recorder.ended < stage.trials and not searcher.exhausted:  # Tune answers Ctrl-C by an orderly end
        raise TrainingError(
            f"interrupted after {recorder.ended} of {stage.trials} trials",
            where=f"run {run.id}",
            mend="the same command goes on from there",
        )


def _trial(
    values: Point, job: Work, until: int, known: Mapping[str, Trial], paused: Paused | None, *, keeps: bool
) -> None:
    """What Tune runs in each trial's process."""
    from ray import tune

    before = known.get(name(values))
    goes_on = before is not None and paused is not None and paused.holds(before)
    begin, best = (before.steps, before.losses[-1][1]) if before and goes_on else (None, math.inf)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        nonlocal best
        if checkpoint is None:  # what it had reported when it paused
            return
        loss = metrics[METRIC]
        best = min(best, loss)
        tune.report(metrics | {METRIC: best, DIVERGED: not math.isfinite(loss)})

    stretch = Stretch(name(values), until, paused, begin, keeps)
    group.run(job.under(job.spec.with_values(values)), report, stretch)


def _searcher(points: Callable[[], Point | None]) -> Any:
    from ray.tune.search import Searcher

    class Next(Searcher):  # type: ignore[misc]  # Ray is untyped here
        exhausted = False

        def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
            point = points()
            self.exhausted = point is None
            return Searcher.FINISHED if point is None else point

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The recorder tells what came of it."""

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()  # nothing of Tune's own state is gone back to

        def restore(self, checkpoint_path: str) -> None: ...

    return Next()


def _recorder(spec: Spec, known: Mapping[str, Trial], ended: Ended) -> Any:
    """Makes a Trial of each that ends."""
    from ray import tune

    class Recorder(tune.Callback):  # type: ignore[misc]  # Ray is untyped here
        def __init__(self) -> None:
            self.ended = 0
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
            self.ended += 1
            reports = self._reports.pop(trial.trial_id, [])
            ended(outcome(spec, trial.config, reports, error, known.get(name(trial.config))))

    return Recorder()


def outcome(
    spec: Spec, point: Point, reports: Sequence[dict[str, Any]], error: str, before: Trial | None = None
) -> Trial:
    """What a trial came to by its reports; `error` is why it broke off, `before` what it was when this stage began."""
    last = reports[-1] if reports else {}
    epochs = float(last.get("epoch", before.epochs if before else 0.0))
    loss = last.get(METRIC)
    if not error:
        error = "ended without a report" if loss is None else DIVERGED if _diverged(last) else ""
    measured = tuple((float(r["epoch"]), float(r[METRIC])) for r in reports if not _diverged(r))
    begun = min((float(r["epoch"]) for r in reports), default=math.inf)
    return Trial(
        id=name(point),
        values=dict(point),
        validation_loss=None if error else loss,
        validation_accuracy=last.get("validation_accuracy"),
        epochs=epochs,
        status=FAILED if error else ("finished" if epochs >= spec.sweep.epochs else "stopped"),
        error=error,
        steps=int(last.get("step", before.steps if before else 0)),
        losses=(*(pair for pair in (before.losses if before else ()) if pair[0] < begun), *measured),
    )


def _diverged(report: dict[str, Any]) -> bool:
    return bool(report.get(DIVERGED)) or not math.isfinite(report[METRIC])
