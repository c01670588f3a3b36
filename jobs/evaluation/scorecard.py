"""The Scorecard: what a model scores on rows it was never trained on, with bootstrap intervals.

Most metrics are functions of the confusion matrix. Resampling rows with replacement draws that matrix's cells from a
multinomial, so the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13) needs no loop over rows; the two
that need every probability draw how often each row counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.metrics import confusion_matrix

from .calibration import Calibration
from .metrics import METRICS, Counts, Values, f1, hits, log_loss, ratio, roc_auc
from .slices import Gap, Slice

ROC_AUC, LOG_LOSS = "roc_auc", "log_loss"


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
    """`confusion[i][j]`: rows of true label i that were predicted as label j, in the order of `labels`.

    `slices` are worst first. `calibration`, and the metrics roc_auc and log_loss, are there when scores are known.
    """

    rows: int
    metrics: Mapping[str, Interval]
    per_label: Mapping[str, LabelScore]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Scorecard:
        return TypeAdapter(cls).validate_python(tree)


def score(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    shares: Values | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scorecard:
    """Scorecard of `len(true)` rows. `labels` fixes the order. Raises ValueError on no rows.

    `shares`, (rows, labels), are the probabilities behind the predictions.
    """
    if not true:
        raise ValueError("a Scorecard needs at least one row")
    counts: Counts = confusion_matrix(list(true), list(predicted), labels=list(labels)).astype(np.int64)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(true), counts.ravel() / len(true), size=resamples)
    drawn = draws.reshape(resamples, *counts.shape)
    metrics = {name: _interval(metric(counts), metric(drawn), confidence) for name, metric in METRICS.items()}
    if shares is not None:
        metrics |= _by_share(_indices(true, labels), shares, resamples, confidence, rng)
    precision, recall, per_label = ratio(hits(counts), counts.sum(0)), ratio(hits(counts), counts.sum(1)), f1(counts)
    return Scorecard(
        rows=len(true),
        metrics=metrics,
        per_label={
            label: LabelScore(float(precision[i]), float(recall[i]), float(per_label[i]), int(counts[i].sum()))
            for i, label in enumerate(labels)
        },
        labels=tuple(labels),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
    )


def _indices(true: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place[label] for label in true], np.int64)


def _by_share(
    true: NDArray[np.int64], shares: Values, resamples: int, confidence: float, rng: np.random.Generator
) -> dict[str, Interval]:
    """roc_auc is left out when all rows have one label."""
    rows = len(true)
    once = np.ones((1, rows), np.int64)
    drawn = rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    metrics: dict[str, Callable[[NDArray[np.int64], Values, Counts], Values]] = {LOG_LOSS: log_loss}
    if len(set(true)) > 1:
        metrics[ROC_AUC] = roc_auc
    return {
        name: _interval(metric(true, shares, once)[0], metric(true, shares, drawn), confidence)
        for name, metric in metrics.items()
    }


def _interval(value: Any, drawn: Values, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
