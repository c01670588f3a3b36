"""The Scorecard: what a model scores on rows it was never trained on, with bootstrap intervals.

Of targets that are one label most metrics are functions of the confusion matrix. Resampling rows with replacement
draws that matrix's cells from a multinomial, so the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13)
needs no loop over rows; the two that need every probability draw how often each row counts, and so do the metrics of
all other targets, which are functions of sums over rows (`jobs.targets.Metric`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from jobs.targets import EXACT_MATCH, Found, Targets

from .calibration import Calibration
from .metrics import METRICS, SHARE_METRICS, Counts, Values, of_labels, of_shares, tallies
from .slices import Gap, Slice


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

    `confusion` is empty where targets are not one label, `per_label` where they have no labels. `slices` are worst
    first. `calibration`, and the metrics roc_auc and log_loss, are there when scores are known.
    """

    rows: int
    metrics: Mapping[str, Interval]
    per_label: Mapping[str, LabelScore]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of rows whose answer is right as a whole."""
        return next(self.metrics[name].value for name in ("accuracy", EXACT_MATCH) if name in self.metrics)

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
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if not true:
        raise ValueError("a Scorecard needs at least one row")
    counts: Counts = confusion_matrix(list(true), list(predicted), labels=list(labels)).astype(np.int64)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(true), counts.ravel() / len(true), size=resamples)
    drawn = draws.reshape(resamples, *counts.shape)
    metrics = {
        name: interval(value, METRICS[name](tallies(drawn)), confidence)
        for name, value in of_labels(true, predicted).items()
    }
    if shares is not None:
        metrics |= _by_share(_indices(true, labels), shares, resamples, confidence, rng)
    by_label = precision_recall_fscore_support(list(true), list(predicted), labels=list(labels), zero_division=0)
    return Scorecard(
        rows=len(true),
        metrics=metrics,
        per_label={
            label: LabelScore(float(precision), float(recall), float(f1), int(support))
            for label, precision, recall, f1, support in zip(labels, *by_label, strict=True)
        },
        labels=tuple(labels),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
    )


def score_others(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    targets: Targets,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scorecard:
    """The same where a target is not one label. Raises ValueError on no rows."""
    if not true:
        raise ValueError("a Scorecard needs at least one row")
    rows = len(true)
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    metrics = {}
    for name, metric in targets.METRICS.items():
        (each,) = metric.statistics(true, [predicted])
        metrics[name] = interval(metric.value(each.sum(0)), metric.value(drawn @ each), confidence)
    wanted, given = ([targets.found(target) for target in side] for side in (true, predicted))
    return Scorecard(rows, metrics, {label: _label_score(label, wanted, given) for label in labels}, tuple(labels), ())


def _label_score(label: str, wanted: Sequence[frozenset[Found]], given: Sequence[frozenset[Found]]) -> LabelScore:
    pairs = [([{f for f in side if f[0] == label} for side in both]) for both in zip(wanted, given, strict=True)]
    hits = sum(len(t & p) for t, p in pairs)
    true, said = sum(len(t) for t, _ in pairs), sum(len(p) for _, p in pairs)
    return LabelScore(hits / max(1, said), hits / max(1, true), 2 * hits / max(1, true + said), true)


def _indices(true: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place[label] for label in true], np.int64)


def _by_share(
    true: NDArray[np.int64], shares: Values, resamples: int, confidence: float, rng: np.random.Generator
) -> dict[str, Interval]:
    rows = len(true)
    drawn = rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    found = of_shares(true, shares)
    return {
        name: interval(value, SHARE_METRICS[name](true, shares, drawn), confidence) for name, value in found.items()
    }


def interval(value: Any, drawn: Values, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
