"""The Scorecard: what a model scores on rows it was never trained on, with bootstrap intervals.

Metrics are scikit-learn's. Intervals are percentile bootstrap intervals over rows (Efron & Tibshirani 1993, ch. 13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

Labels = NDArray[np.int64]


def _macro_f1(true: Labels, predicted: Labels) -> float:
    return float(f1_score(true, predicted, average="macro", zero_division=0.0))


def _accuracy(true: Labels, predicted: Labels) -> float:
    return float(accuracy_score(true, predicted))


METRICS: dict[str, Callable[[Labels, Labels], float]] = {"accuracy": _accuracy, "macro_f1": _macro_f1}


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
    index = {label: i for i, label in enumerate(labels)}
    t = np.array([index[label] for label in true], dtype=np.int64)
    p = np.array([index[label] for label in predicted], dtype=np.int64)
    precision, recall, f1, support = precision_recall_fscore_support(
        t, p, labels=range(len(labels)), zero_division=0.0
    )
    draws = np.random.default_rng(seed).integers(0, len(t), size=(resamples, len(t)))
    return Scorecard(
        rows=len(t),
        metrics={name: _interval(metric, t, p, draws, confidence) for name, metric in METRICS.items()},
        per_label={
            label: LabelScore(float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, label in enumerate(labels)
        },
        labels=tuple(labels),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion_matrix(t, p, labels=range(len(labels)))),
    )


def _interval(
    metric: Callable[[Labels, Labels], float], t: Labels, p: Labels, draws: NDArray[np.int64], confidence: float
) -> Interval:
    values = [metric(t[rows], p[rows]) for rows in draws]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(metric(t, p), float(low), float(high))
