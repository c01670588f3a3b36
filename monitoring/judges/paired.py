"""Two models on the same rows: is one better than the other, or was it chance?

Under the null hypothesis the answers of both could change places on any row (approximate randomization, Noreen 1989).
For accuracy that has a closed form, the exact McNemar test; other metrics draw which rows change places. The interval
of the difference is a paired bootstrap (Efron & Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.targets import EXACT_MATCH, Targets, label

Answers = NDArray[np.str_]

_SWAPS = 2000
_CELLS = 2**23  # of an array of draws by rows
_OF_WHOLE_ANSWERS = {"accuracy", EXACT_MATCH}


@dataclass(frozen=True)
class Compared:
    """Values of one metric on `rows` rows. `low`, `high`: interval of `gain`, challenger less champion.

    `won`, `lost`: rows that only the challenger, only the champion has right. `p_better`, `p_worse`: one-sided chance
    of a gain, a loss at least this large when both are equally good.
    """

    rows: int
    champion: float
    challenger: float
    low: float
    high: float
    won: int
    lost: int
    p_better: float
    p_worse: float

    @property
    def gain(self) -> float:
        return self.challenger - self.champion


def compare(
    true: Answers,
    champion: Answers,
    challenger: Answers,
    *,
    metric: str = "accuracy",
    targets: Targets = label,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Compared:
    """`true`, `champion`, `challenger`, each (rows,), by one of `targets.METRICS`. Raises ValueError on no rows."""
    if not len(true):
        raise ValueError("nothing can be compared on no rows")
    rows, rng, value = len(true), np.random.default_rng(seed), targets.METRICS[metric].value
    ours, theirs = targets.METRICS[metric].statistics(list(true), [list(champion), list(challenger)])

    def drawn(count: int) -> NDArray[np.float64]:
        """Gains of so many resamples of the rows."""
        times = rng.multinomial(rows, np.full(rows, 1 / rows), size=count).astype(float)
        return value(times @ theirs) - value(times @ ours)

    def swapped(count: int) -> NDArray[np.float64]:
        """Gains when by the toss of a coin each row's two answers change places or stay."""
        moved = rng.integers(0, 2, size=(count, rows)).astype(float) @ (theirs - ours)
        return value(theirs.sum(0) - moved) - value(ours.sum(0) + moved)

    tail = (1 - confidence) / 2
    low, high = np.quantile(_in_parts(drawn, resamples, rows), [tail, 1 - tail])
    before, after = float(value(ours.sum(0))), float(value(theirs.sum(0)))
    won, lost = discordant(true, champion, challenger)
    if metric in _OF_WHOLE_ANSWERS:
        better, worse = mcnemar(won, lost), mcnemar(lost, won)
    else:
        null = _in_parts(swapped, _SWAPS, rows)
        better, worse = (_share(sign * null, sign * (after - before)) for sign in (1, -1))
    return Compared(rows, before, after, float(low), float(high), won, lost, better, worse)


def _in_parts(draw: Callable[[int], NDArray[np.float64]], count: int, rows: int) -> NDArray[np.float64]:
    """`count` draws, not so many at a time that memory grows with count times rows."""
    size = max(1, _CELLS // rows)
    return np.concatenate([draw(min(size, count - at)) for at in range(0, count, size)])


def discordant(true: Answers, champion: Answers, challenger: Answers) -> tuple[int, int]:
    """Rows that only the challenger has right, and rows that only the champion has right."""
    ours, theirs = champion == true, challenger == true
    return int((theirs & ~ours).sum()), int((ours & ~theirs).sum())


def mcnemar(won: int, lost: int) -> float:
    """One-sided exact McNemar test: P(X >= won) of a binomial X with won + lost trials and chance 1/2."""
    from scipy.stats import binom

    return float(binom.sf(won - 1, won + lost, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for there being many, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _share(null: NDArray[np.float64], found: float) -> float:
    # Equal differences come out unequal in the last digits.
    return float((1 + (null >= found - 1e-12).sum()) / (1 + len(null)))
