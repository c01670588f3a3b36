"""One label of a known set. Its metrics are functions of the confusion matrix (`jobs/evaluation/metrics.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jobs.evaluation import metrics
from jobs.inputs import texts

from . import Found, Metric, Values

NAME, CLOSED, LISTED, LEAST = "label", True, True, 2  # a classifier needs two classes

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


def _tallied(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
    """(models, rows, 3 x labels): what `metrics.tallies` makes of each row's own confusion matrix."""
    names = sorted({*true, *(name for each in predicted for name in each)})
    place = {name: at for at, name in enumerate(names)}

    def marks(targets: Sequence[str]) -> Values:
        made = np.zeros((len(targets), len(names)))
        made[np.arange(len(targets)), [place[target] for target in targets]] = 1
        return made

    wanted = marks(true)
    return np.array([np.hstack([wanted * given, wanted, given]) for given in map(marks, predicted)])


METRICS = {name: Metric(_tallied, value) for name, value in metrics.METRICS.items()}
