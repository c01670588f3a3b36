"""Which keys of a sweep mattered: fANOVA (Hutter et al. 2014), as Optuna has it, and a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.spec import Spec

from . import points
from .record import Importance, Trial

_PER_KEY = 4
"""Trials for each key below which the shares would be chance."""


def measure(spec: Spec, trials: Sequence[Trial]) -> Importance:
    """By the loss after `sweep.grace_epochs`, which each trial reaches: beyond, some have trained longer.

    A key with one value among the trials explains nothing and has no share.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    epochs = float(spec.sweep.grace_epochs)
    measured = [(trial, loss) for trial in trials if (loss := trial.loss_after(epochs)) is not None]
    needed = _PER_KEY * len(spec.sweep.search)
    if len(measured) < needed:
        return Importance(
            trials=len(measured), epochs=epochs, note=f"{len(measured)} trials are too few, {needed} would do"
        )
    if len({loss for _, loss in measured}) == 1:
        return Importance(trials=len(measured), epochs=epochs, note="all trials did equally well")
    study = points.study()
    for trial, loss in measured:
        points.add(study, spec, replace(trial, status="finished", validation_loss=loss))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=spec.training.seed))
    return Importance({key: float(share) for key, share in shares.items()}, len(measured), epochs)


def draw(found: Importance, path: Path) -> None:
    """One bar a key, the greatest on top, as PNG."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    ranked = sorted(found.shares.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([key for key, _ in ranked], [share for _, share in ranked])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel=f"share of the variance of the loss ({found.trials} trials, epoch {found.epochs:g})")
    figure.savefig(path, dpi=120)
