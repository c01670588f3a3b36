"""Two models on the same rows: is one better than the other, or was it chance?

Under the null hypothesis the answers of both could change places on any row (approximate randomization, Noreen 1989).
For accuracy that has a closed form, the exact McNemar test; other metrics draw which rows change places. The interval
of the difference is a paired bootstrap (Efron & Tibshirani 1993). `compare` is for targets that are one label,
`compare_others` for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.evaluation.metrics import METRICS
from jobs.targets import Metric

Labels = NDArray[np.str_]

_SWAPS = 2000


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
    true: Labels,
    champion: Labels,
    challenger: Labels,
    labels: Sequence[str],
    *,
    metric: str = "accuracy",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Compared:
    """`true`, `champion`, `challenger`, each (rows,), hold values of `labels`. Raises ValueError on no rows."""
    if not len(true):
        raise ValueError("nothing can be compared on no rows")
    counts = _Counts.of(true, champion, challenger, labels)
    rng = np.random.default_rng(seed)
    champions, challengers = counts.metric(metric, counts.resampled(resamples, rng))
    tail = (1 - confidence) / 2
    low, high = np.quantile(challengers - champions, [tail, 1 - tail])
    ours, theirs = (float(value[0]) for value in counts.metric(metric, counts.cells[None]))
    won, lost = discordant(true, champion, challenger)
    if metric == "accuracy":
        better, worse = mcnemar(won, lost), mcnemar(lost, won)
    else:
        champions, challengers = counts.metric(metric, counts.swapped(_SWAPS, rng))
        better, worse = (_share(sign * (challengers - champions), sign * (theirs - ours)) for sign in (1, -1))
    return Compared(len(true), ours, theirs, float(low), float(high), won, lost, better, worse)


def compare_others(
    true: Labels,
    champion: Labels,
    challenger: Labels,
    metric: Metric,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Compared:
    """The same by a metric of sums over rows. Raises ValueError on no rows."""
    if not len(true):
        raise ValueError("nothing can be compared on no rows")
    rows, rng = len(true), np.random.default_rng(seed)
    ours, theirs = metric.statistics(list(true), [list(champion), list(challenger)])
    drawn = rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(metric.value(drawn @ theirs) - metric.value(drawn @ ours), [tail, 1 - tail])
    # By the toss of a coin each row's two answers change places or stay.
    moved = rng.integers(0, 2, size=(_SWAPS, rows)) @ (theirs - ours)
    null = metric.value(theirs.sum(0) - moved) - metric.value(ours.sum(0) + moved)
    before, after = float(metric.value(ours.sum(0))), float(metric.value(theirs.sum(0)))
    better, worse = (_share(sign * null, sign * (after - before)) for sign in (1, -1))
    won, lost = discordant(true, champion, challenger)
    return Compared(rows, before, after, float(low), float(high), won, lost, better, worse)


def discordant(true: Labels, champion: Labels, challenger: Labels) -> tuple[int, int]:
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


@dataclass(frozen=True)
class _Counts:
    """How often each (true, champion, challenger) occurs, for those that do or that swapping makes.

    `kinds`: (n, 3) places in `labels`; `mirror`: (n,) the place of the kind with both answers swapped; `cells`: (n,).
    """

    kinds: NDArray[np.int64]
    mirror: NDArray[np.int64]
    cells: NDArray[np.int64]
    labels: int

    @classmethod
    def of(cls, true: Labels, champion: Labels, challenger: Labels, labels: Sequence[str]) -> _Counts:
        place, size = {label: i for i, label in enumerate(labels)}, len(labels)
        t, a, b = (np.array([place[label] for label in column]) for column in (true, champion, challenger))
        codes = (t * size + a) * size + b
        known = np.unique(np.concatenate([codes, (t * size + b) * size + a]))
        kinds = np.column_stack([known // size**2, known // size % size, known % size])
        mirror = np.searchsorted(known, (kinds[:, 0] * size + kinds[:, 2]) * size + kinds[:, 1])
        return cls(kinds, mirror, np.bincount(np.searchsorted(known, codes), minlength=len(known)), size)

    def metric(self, name: str, cells: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the champion and the challenger, for each row of `cells`, (draws, n)."""
        champion, challenger = (METRICS[name](self._confusion(cells, column)) for column in (1, 2))
        return champion, challenger

    def resampled(self, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
        rows = self.cells.sum()
        return rng.multinomial(rows, self.cells / rows, size=draws)

    def swapped(self, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Each row's two answers change places or stay, by the toss of a coin."""
        stay = rng.binomial(self.cells, 0.5, size=(draws, len(self.cells)))
        return np.asarray(stay + (self.cells - stay)[:, self.mirror])

    def _confusion(self, cells: NDArray[np.int64], column: int) -> NDArray[np.int64]:
        from scipy.sparse import csr_array

        rows, place = np.arange(len(self.kinds)), self.kinds[:, 0] * self.labels + self.kinds[:, column]
        member = csr_array((np.ones(len(rows), np.int64), (rows, place)), shape=(len(rows), self.labels**2))
        return np.asarray((cells @ member).reshape(len(cells), self.labels, self.labels))
