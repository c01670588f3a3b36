"""The Scorecard: what a model scores on rows it was never trained on, with bootstrap intervals.

Every metric is a function of the confusion matrix. Resampling rows with replacement draws that matrix's cells from a
multinomial, so the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13) needs no loop over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

Counts = NDArray[np.int64]
"""Confusion matrices, shape (..., labels, labels), true label first."""
Values = NDArray[np.float64]


def _ratio(part: Counts, whole: Counts) -> Values:
    """0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _hits(counts: Counts) -> Counts:
    return np.asarray(counts.diagonal(axis1=-2, axis2=-1))


def _accuracy(counts: Counts) -> Values:
    return np.asarray(_hits(counts).sum(-1) / counts.sum((-2, -1)))


def _f1(counts: Counts) -> Values:
    return _ratio(2 * _hits(counts), counts.sum(-1) + counts.sum(-2))


def _macro_f1(counts: Counts) -> Values:
    """Mean over the labels that occur as true or predicted, as scikit-learn has it."""
    occurs = counts.sum(-1) + counts.sum(-2) > 0
    return np.asarray(_f1(counts).sum(-1) / occurs.sum(-1))


METRICS: dict[str, Callable[[Counts], Values]] = {"accuracy": _accuracy, "macro_f1": _macro_f1}


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelScore:
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scorecard:
    """`confusion[i][j]`: rows of true label i that were predicted as label j, in the order of `labels`."""

    rows: int
    metrics: Mapping[str, Interval]
    per_label: Mapping[str, LabelScore]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Scorecard:
        return cls(
            rows=tree["rows"],
            metrics={name: Interval(**value) for name, value in tree["metrics"].items()},
            per_label={name: LabelScore(**value) for name, value in tree["per_label"].items()},
            labels=tuple(tree["labels"]),
            confusion=tuple(tuple(row) for row in tree["confusion"]),
        )


def score(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scorecard:
    """Scorecard of `len(true)` rows. `labels` fixes the order. Raises ValueError on no rows."""
    if not true:
        raise ValueError("a Scorecard needs at least one row")
    counts: Counts = confusion_matrix(list(true), list(predicted), labels=list(labels)).astype(np.int64)
    draws = np.random.default_rng(seed).multinomial(len(true), counts.ravel() / len(true), size=resamples)
    drawn = draws.reshape(resamples, *counts.shape)
    precision, recall, f1 = _ratio(_hits(counts), counts.sum(0)), _ratio(_hits(counts), counts.sum(1)), _f1(counts)
    return Scorecard(
        rows=len(true),
        metrics={name: _interval(metric, counts, drawn, confidence) for name, metric in METRICS.items()},
        per_label={
            label: LabelScore(float(precision[i]), float(recall[i]), float(f1[i]), int(counts[i].sum()))
            for i, label in enumerate(labels)
        },
        labels=tuple(labels),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
    )


def _interval(metric: Callable[[Counts], Values], counts: Counts, drawn: Counts, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(metric(drawn), [tail, 1 - tail])
    return Interval(float(metric(counts)), float(low), float(high))
