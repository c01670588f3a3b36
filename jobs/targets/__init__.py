"""What models give. Labels, predictions and true labels are strings wherever they are kept or sent: one label, a set of
labels, marked spans of a text, a text, one of
many known texts, or two texts of which one is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.evaluation.metrics import ratio

Values = NDArray[np.float64]
Found = tuple[str, object]


@dataclass(frozen=True)
class Metric:
    """A metric that is a function of sums over rows, so that a resample of rows needs no second look at them.

    `statistics(true, predicted)`: `predicted` are the answers of one model or more to the same rows; of shape
    (models, rows, k). `value`: of sums of shape (..., k) the metric, shape (...). The higher the better.
    """

    statistics: Callable[[Sequence[str], Sequence[Sequence[str]]], Values]
    value: Callable[[Values], Values]


class Targets(Protocol):
    """One kind of target; the modules beside this are one each."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant, as are the next ones

    @property
    def CLOSED(self) -> bool:  # noqa: N802
        """Whether each target is one of the labels: only then are there confusions, rare labels and doubtful ones."""

    @property
    def LISTED(self) -> bool:  # noqa: N802
        """Whether labels are few enough to be counted and shown one by one: not where each is a text of its own."""

    @property
    def LEAST(self) -> int:  # noqa: N802
        """Labels that data must have."""

    @property
    def METRICS(self) -> Mapping[str, Metric]:  # noqa: N802
        """By name; the first is the one that the gate compares unless the spec says another."""

    def read(self, value: object, /) -> str:
        """A cell of a source as a target, "" where it is missing. Raises ValueError, which says what is wrong."""

    def parts(self, target: str, /) -> Sequence[str]:
        """The labels that occur in it."""

    def found(self, target: str, /) -> frozenset[Found]:
        """The same, each with what else must be right about it: where a span is."""

    def fault(self, target: str, labels: Sequence[str], /) -> str:
        """What is wrong with a target that somebody sends for a model of these labels; "" where nothing is."""

    def watched(self, targets: Sequence[str], labels: Sequence[str], /) -> pd.DataFrame:
        """A row a target, a column for each thing whose drift is watched: numbers, or text for categories."""


def mean(of: Callable[[str, str], float]) -> Metric:
    """The metric that is the mean of a score of each row, `of(true, predicted)`."""

    def statistics(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
        return np.array([[[of(t, p), 1.0] for t, p in zip(true, each, strict=True)] for each in predicted])

    return Metric(statistics, lambda sums: ratio(sums[..., 0], sums[..., 1]))


def f1(found: Callable[[str], frozenset[Found]]) -> Metric:
    """F1 over everything that is found in all targets together ("micro")."""

    def statistics(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
        wanted = [found(t) for t in true]
        given = [[found(p) for p in each] for each in predicted]
        return np.array(
            [[[len(t & p), len(t) + len(p)] for t, p in zip(wanted, each, strict=True)] for each in given], float
        )

    return Metric(statistics, lambda sums: ratio(2 * sums[..., 0], sums[..., 1]))


EXACT_MATCH = "exact_match"
exact_match = mean(lambda true, predicted: float(true == predicted))
