"""One label of a known set. Its metrics are functions of the confusion matrix (`jobs/evaluation/metrics.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from jobs.evaluation import metrics
from jobs.inputs import texts

from . import Found, Metric, Values

NAME, CLOSED, LEAST = "label", True, 2  # a classifier needs two classes

PREDICTED = "predicted label"


def read(value: object) -> str:
    """The label's name; numbers keep their shortest form."""
    return texts.cell(value)


def parts(target: str) -> Sequence[str]:
    """Itself."""
    return [target]


def found(target: str) -> frozenset[Found]:
    """Itself."""
    return frozenset([(target, None)])


def fault(target: str, labels: Sequence[str]) -> str:
    """That it is none of the labels."""
    return "" if target in labels else f"{target[:80]!r} is no label; labels are {', '.join(labels)}"


def watched(targets: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:  # noqa: ARG001 - those that occur
    """The label, as a category."""
    return pd.DataFrame({PREDICTED: list(targets)}, dtype=object)


def _of_confusion(value: Callable[[metrics.Counts], Values]) -> Metric:
    def statistics(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
        names = sorted({*true, *(label for each in predicted for label in each)})
        place, size = {name: i for i, name in enumerate(names)}, len(names)
        cells = np.zeros((len(predicted), len(true), size * size))
        for model, each in enumerate(predicted):
            at = [place[t] * size + place[p] for t, p in zip(true, each, strict=True)]
            cells[model, np.arange(len(true)), at] = 1
        return cells

    def of_sums(sums: Values) -> Values:
        side = round(sums.shape[-1] ** 0.5)
        return value(sums.reshape(*sums.shape[:-1], side, side).astype(np.int64))

    return Metric(statistics, of_sums)


METRICS = {name: _of_confusion(value) for name, value in metrics.METRICS.items()}
