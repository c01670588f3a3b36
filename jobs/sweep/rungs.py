"""Who goes on in synchronous successive halving, and until when (Jamieson & Talwalkar 2016, arXiv:1502.07943).

No Ray here. It is one bracket of Hyperband (Li et al. 2018, arXiv:1603.06560): all points train to the first rung, the
best one in `sweep.reduction_factor` of them to the next, and so on. How many are in a rung is settled before anything
has trained, and of equal losses the lesser id goes first: nothing hangs on the order in which points come, and one that
failed makes no place for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.spec import SweepSpec

from .record import FAILED, Trial


@dataclass(frozen=True)
class Rung:
    epochs: int
    """Until when its trials train, counted from their beginning."""
    trials: int
    """How many there are in it."""


def ladder(sweep: SweepSpec, points: int) -> tuple[Rung, ...]:
    """ASHA's rungs, up to the first that one trial has to itself: from there it goes to the end."""
    made: list[Rung] = []
    epochs = sweep.grace_epochs
    while points > 1 and epochs < sweep.epochs:
        made.append(Rung(epochs, points))
        points = -(-points // sweep.reduction_factor)
        epochs *= sweep.reduction_factor
    return (*made, Rung(sweep.epochs, points))


def best(trials: Iterable[Trial], rung: Rung, count: int) -> list[Trial]:
    """The `count` of least loss at a rung, of those that came so far; one that failed beyond it keeps its place."""
    ranked = [(loss, trial.id, trial) for trial in trials if (loss := trial.loss_after(rung.epochs)) is not None]
    return [trial for *_, trial in sorted(ranked, key=lambda one: one[:2])[:count]]


def behind(trials: Iterable[Trial], rung: Rung) -> list[Trial]:
    """Those that have to train to come to a rung. Who failed trains no more."""
    return [trial for trial in trials if trial.status != FAILED and trial.loss_after(rung.epochs) is None]


def left(rungs: Sequence[Rung], trials: Sequence[Trial]) -> int:
    """Epochs that trials have yet to train; a failed one counts as done with the rung in which it failed."""
    below, epochs = 0, 0
    for rung in rungs:
        done = sum(
            trial.loss_after(rung.epochs) is not None or (trial.status == FAILED and trial.epochs >= below)
            for trial in trials
        )
        epochs += max(0, rung.trials - done) * (rung.epochs - below)
        below = rung.epochs
    return epochs
