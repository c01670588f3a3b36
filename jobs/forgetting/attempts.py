"""Retrainings from a champion, one after another, until one forgets no more than the budget; the best is kept.

Which recipe comes next and which attempt is best is decided in `forgetting.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.console import say
from cluster.store.storage import Storage
from cluster.store.tracking import Run
from jobs import tasks
from jobs.data.dataset import DatasetVersion
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import RetrainSpec, Spec
from jobs.training import train
from jobs.training.loop import Work
from jobs.training.train import Trained

from . import anchor, blend, forgetting
from .anchor import Anchor
from .forgetting import Attempt, Forgetting, Measured, Recipe

OpenRun = Callable[[Work | None], AbstractContextManager[Run]]
"""A run for a training, or for what trains nothing."""


@dataclass(frozen=True)
class Chosen:
    """The attempt to publish, in a run that is still open, and what all of them did."""

    trained: Trained
    run: Run
    forgetting: Forgetting


def choose(
    spec: Spec, data: DatasetVersion, storage: Storage, start: Path, open_run: OpenRun, runs: ExitStack
) -> Chosen:
    """Train from the model in `start`. Each attempt's run stays open until `runs` closes.

    Raises DataError for an unusable anchor, SpecError for a remedy that cannot be had, TrainingError.
    """
    blends = Path(runs.enter_context(TemporaryDirectory()))
    train.check_remedies(spec, train.stage(spec, data).stage)
    rows, metric, budget = anchor.load(spec, data, storage), spec.evaluation.metric, spec.evaluation.max_loss_on_old
    before = anchor.measure(Predictor.load(start), rows, data.labels, spec)
    kept: list[tuple[Trained, Run]] = []

    def attempt(recipe: Recipe) -> Attempt:
        job = train.work(spec, data, storage, start, recipe)
        run = runs.enter_context(open_run(job if recipe.blend == 1 else None))
        if recipe.blend < 1:
            trained = blended(kept[0][0], start, recipe, blends)
        else:
            trained = train.fit(job, storage, run, f"retrain, {recipe.name}")
        kept.append((trained, run))
        after = _measure(spec, data, trained.folder, rows)
        made = Attempt(recipe, after, before.anchor - after.anchor, len(job.train), trained.seconds, run.id)
        run.log_params({"recipe": recipe.name} | {k: v for k, v in vars(recipe).items() if k != "name"})
        run.log_metrics({f"anchor_{metric}": after.anchor, "anchor_loss": made.loss})
        say(_line(made, before, rows, spec))
        return made

    attempts = forgetting.chain(_remedies(spec), budget, attempt)
    best = forgetting.best(attempts, budget)
    trained, run = kept[best]
    return Chosen(trained, run, Forgetting(metric, rows.name, len(rows.rows), budget, before, attempts, best))


def blended(trained: Trained, start: Path, recipe: Recipe, folder: Path) -> Trained:
    """A training's weights on their way back to `start`, in a new `folder`; itself when the recipe blends nothing."""
    if recipe.blend == 1:
        return trained
    blend.blend(start, trained.folder, recipe.blend, folder)
    return replace(trained, folder=folder)


def _remedies(spec: Spec) -> RetrainSpec:
    """Without elastic weight consolidation where an answer is no label: its Fisher information is that of labels."""
    if tasks.get(spec.task).targets.CLOSED:
        return spec.retrain
    return spec.retrain.model_copy(update={"remedies": tuple(r for r in spec.retrain.remedies if r != forgetting.EWC)})


def _measure(spec: Spec, data: DatasetVersion, folder: Path, rows: Anchor) -> Measured:
    task = tasks.get(spec.task)
    net = model.load(folder, task, spec.base_model, data.labels, merge=True)
    processor = task.processor(model.locate(spec.base_model))
    predictor = Predictor(net, task, processor, data.labels, spec.bounds)
    return anchor.measure(predictor, rows, data.labels, spec)


def _line(made: Attempt, before: Measured, rows: Anchor, spec: Spec) -> str:
    budget = spec.evaluation.max_loss_on_old
    return (
        f"{made.recipe.name}: {spec.evaluation.metric} on {rows.name} {before.anchor:.3f} -> "
        f"{made.measured.anchor:.3f}, a loss of {100 * made.loss:.1f} points "
        f"({'within' if forgetting.within(made.loss, budget) else 'more than'} the {100 * budget:.1f} it may lose)"
    )
