"""How much a retraining may forget, and what is tried next when it forgot more. Pure: numbers in, a recipe out.

Measuring is in `anchor.py`, training in `attempts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.spec import RetrainSpec

BLEND, REPLAY, EWC = "blend", "replay", "ewc"
FIRST = "as the spec says"
_ALL, _TWICE = 1.0, 2.0
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Recipe:
    """One way to go on from a champion. `replay`: times each old row is seen an epoch, a share below 1.

    `blend`: how far on the line from the champion's weights to the trained ones the result lies (`blend.py`).
    """

    name: str
    replay: float
    ewc_lambda: float = 0.0
    blend: float = 1.0


@dataclass(frozen=True)
class Measured:
    """The metric on the anchor and, where there are such rows, on the new kind."""

    anchor: float
    new: float | None


@dataclass(frozen=True)
class Attempt:
    """One training and what it did to the anchor. `loss` is what the metric fell by there; below 0 it rose."""

    recipe: Recipe
    measured: Measured
    loss: float
    rows: int
    seconds: float
    run: str


@dataclass(frozen=True)
class Forgetting:
    """All attempts in order, the model that they started from, and which of them was published (its index)."""

    metric: str
    anchor: str
    rows: int
    budget: float
    before: Measured
    attempts: tuple[Attempt, ...]
    published: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recipes(spec: RetrainSpec) -> tuple[Recipe, ...]:
    """The first attempt, its blend, and each remedy that trains again on top of the one before it.

    `blend` trains nothing: it takes the first attempt's weights. `replay` takes all old rows; where all were taken
    already, each of them twice. `ewc` adds the penalty.
    """
    first = Recipe(FIRST, spec.replay)
    made = [first, *([replace(first, name=BLEND, blend=spec.blend)] if BLEND in spec.remedies else [])]
    last, again = first, [remedy for remedy in spec.remedies if remedy != BLEND]
    for count, remedy in enumerate(again, 1):
        last = replace(last, name=" + ".join(again[:count]))
        if remedy == REPLAY:
            last = replace(last, replay=_ALL if last.replay < _ALL else _TWICE)
        else:
            last = replace(last, ewc_lambda=spec.ewc_lambda)
        made.append(last)
    return tuple(made)


def following(attempts: Sequence[Attempt], spec: RetrainSpec, budget: float) -> Recipe | None:
    """What to try next; None once an attempt lost no more than the budget, or when nothing is left."""
    if any(within(attempt.loss, budget) for attempt in attempts):
        return None
    left = recipes(spec)[len(attempts) :]
    return left[0] if left else None


def best(attempts: Sequence[Attempt], budget: float) -> int:
    """The index of the attempt to publish: the one within the budget, else the one that lost least.

    New rows have no say: choosing by them would wear out the holdout that the gate judges on.
    """
    for index, attempt in enumerate(attempts):
        if within(attempt.loss, budget):
            return index
    return min(range(len(attempts)), key=lambda i: attempts[i].loss)


def chain(spec: RetrainSpec, budget: float, attempt: Callable[[Recipe], Attempt]) -> tuple[Attempt, ...]:
    """Attempts one after another until one is within the budget."""
    made: list[Attempt] = []
    while (recipe := following(made, spec, budget)) is not None:
        made.append(attempt(recipe))
    return tuple(made)


def within(loss: float, budget: float) -> bool:
    """Whether a loss is no more than the budget: on the measured values, as the gate's budget is."""
    return loss <= budget + _ROUNDING
