"""Two samples of rows compared: every column, the embedding and all of them together, as one family of tests.

Each test holds its level under no drift at any sample size (`permutation.py`, `classifier.py`), and the family is
corrected (Bonferroni): the chance that any of them flags two samples of one distribution is `level` at most. Numbers
and categories are compared on all rows, at the cost of sorting them; the embedding and the domain classifier on a drawn
sample, so that their cost is bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import classifier, permutation

EMBEDDING, TOGETHER = "embedding", "all columns together"
KS, CHI_SQUARE, MMD, CLASSIFIER = "ks", "permutation chi-square", "permutation mmd", "domain classifier"

MOST_ROWS = 1000
"""Rows a side of the embedding test, whose kernel grows with their square."""
_MOST_LEARNED = 5000
_EXACT = 1000  # rows up to which scipy's exact null distribution is quick
_MANY = 10_000  # rows from which its asymptotic one is not
_DIRECTIONS = 8  # principal directions of the embedding that the classifier sees beside the columns


@dataclass(frozen=True)
class ColumnDrift:
    """`score` is the p-value, drifted at `threshold` or below; for the embedding it is MMD², drifted above it."""

    name: str
    method: str
    score: float
    p_value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class Sample:
    """Rows of one side. `columns`: numbers, and categories (any other type). `embedding` has shape (rows, hidden)."""

    columns: pd.DataFrame
    embedding: NDArray[np.float64] | None = None

    def drawn(self, most: int) -> Sample:
        """`most` of the rows, the same ones each time, or all of fewer."""
        if len(self.columns) <= most:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.columns))[:most])
        return Sample(self.columns.iloc[chosen], None if self.embedding is None else self.embedding[chosen])


def samples(reference: Sample, current: Sample, level: float) -> tuple[ColumnDrift, ...]:
    """One entry a column in their order, then the embedding, then all together. Both sides have the same columns.

    `level` is the chance that any is flagged when nothing has changed. A missing number is a value of its own.
    """
    names = [str(name) for name in reference.columns]
    each = level / (len(names) + 1 + (reference.embedding is not None))
    found = [_column(name, reference.columns[name], current.columns[name], each) for name in names]
    if reference.embedding is not None and current.embedding is not None:
        found.append(_embedding(reference.drawn(MOST_ROWS), current.drawn(MOST_ROWS), each))
    return (*found, _together(reference.drawn(_MOST_LEARNED), current.drawn(_MOST_LEARNED), each))


def is_number(column: pd.Series) -> bool:
    """Whether a column is compared as a number: a truth value is a category."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def label_counts(reference: pd.Series, current: pd.Series) -> tuple[list[int], list[int]]:
    """How often each value of either column is in the two, in one order; a missing one counts as a value."""
    found = [side.astype("string").fillna("").value_counts() for side in (reference, current)]
    values = sorted({*found[0].index, *found[1].index})
    ref, cur = ([int(side.get(value, 0)) for value in values] for side in found)
    return ref, cur


def _column(name: str, reference: pd.Series, current: pd.Series, level: float) -> ColumnDrift:
    if is_number(reference):
        method, p = KS, ks(_numbers(reference), _numbers(current))
    else:
        method, p = CHI_SQUARE, permutation.counts(*label_counts(reference, current), level).p_value
    return ColumnDrift(name, method, p, p, level, p <= level)


def ks(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """The p-value of Kolmogorov and Smirnov's test of two columns of numbers.

    scipy's for few rows. For many the same statistic with half of its searches, and the limiting distribution with
    Stephens' correction (1970), which is within 1% of the exact one long before there are so many.
    """
    if max(len(reference), len(current)) <= _MANY:
        from scipy.stats import ks_2samp

        exact = max(len(reference), len(current)) <= _EXACT
        return float(ks_2samp(reference, current, method="auto" if exact else "asymp").pvalue)
    from scipy.special import kolmogorov

    ref, cur = np.sort(reference), np.sort(current)
    root = math.sqrt(len(ref) * len(cur) / (len(ref) + len(cur)))
    gap = max(_above(ref, cur), _above(cur, ref))
    return float(kolmogorov(gap * (root + 0.12 + 0.11 / root)))


def _above(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """How far the distribution function of `ours` rises above that of `theirs`; both sorted."""
    steps = np.arange(1, len(ours) + 1) / len(ours)
    return float((steps - np.searchsorted(theirs, ours, side="right") / len(theirs)).max())


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isnan(numbers), -np.inf, numbers)


def _embedding(reference: Sample, current: Sample, level: float) -> ColumnDrift:
    assert reference.embedding is not None
    assert current.embedding is not None
    tested = permutation.mmd(reference.embedding, current.embedding, level)
    return ColumnDrift(EMBEDDING, MMD, tested.score, tested.p_value, tested.threshold, tested.p_value <= level)


def _together(reference: Sample, current: Sample, level: float) -> ColumnDrift:
    rows, split = _matrix(reference, current), len(reference.columns)
    p = classifier.p_value(rows[:split], rows[split:])
    return ColumnDrift(TOGETHER, CLASSIFIER, p, p, level, p <= level)


def _matrix(reference: Sample, current: Sample) -> NDArray[np.float64]:
    """Both sides' rows, the reference first: numbers, a column a common category, directions of the embedding."""
    both = pd.concat([reference.columns, current.columns], ignore_index=True)
    parts = [_numbers(both[name])[:, None] if is_number(both[name]) else _indicators(both[name]) for name in both]
    if reference.embedding is not None and current.embedding is not None:
        parts.append(_directions(np.vstack([reference.embedding, current.embedding])))
    return np.hstack(parts)


def _indicators(column: pd.Series) -> NDArray[np.float64]:
    text = column.astype("string").fillna("")
    return np.stack([(text == value).to_numpy(np.float64) for value in text.value_counts().index[:_DIRECTIONS]], axis=1)


def _directions(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    kept = min(_DIRECTIONS, *points.shape)
    return np.asarray(PCA(kept, random_state=0).fit_transform(points))
