"""Parts of the test rows that may fare worse than the whole: by the values of named columns and by topic.

Topics are clusters of the inputs themselves (`jobs/inputs/`), not of a model's embeddings: those follow what the model
predicts, and two models would be compared on parts that one of them drew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BY = "by "
"""Begins the name of each column of answers that slices them; "" is a row without a value."""
TOPIC = "found topic"


@dataclass(frozen=True)
class Slice:
    """Rows with one value of a column. `low`, `high`: Wilson interval of the accuracy. `predicted`: share a label."""

    column: str
    value: str
    rows: int
    accuracy: float
    low: float
    high: float
    predicted: dict[str, float]
    enough: bool
    """Whether it has the rows to be judged by (`evaluation.min_slice_rows`)."""

    @property
    def name(self) -> str:
        return f"{self.column} {self.value}"


@dataclass(frozen=True)
class Gap:
    """The most that slices of one column differ by, among those with enough rows.

    `accuracy`: highest less lowest. `predicted`: the same for the share of rows that got one label, of the label where
    it is largest (demographic parity difference); "" where there are no labels. `p_value`: chance that equal slices
    look as different in accuracy (chi-square test).
    """

    column: str
    best: str
    worst: str
    accuracy: float
    label: str
    predicted: float
    p_value: float


def columns(rows: pd.DataFrame) -> list[str]:
    """Names of the columns that slice answers, without BY."""
    return [str(name).removeprefix(BY) for name in rows.columns if str(name).startswith(BY)]


def parts(rows: pd.DataFrame) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """(column, value, which rows) of each slice."""
    for column in columns(rows):
        values = rows[BY + column].to_numpy()
        for value in sorted(set(values) - {""}):
            yield column, value, values == value


def slices(rows: pd.DataFrame, labels: Sequence[str], least: int) -> tuple[Slice, ...]:
    """Slices of answers (`true, label` and BY columns), worst first, those under `least` rows last."""
    made = [_slice(column, value, rows[inside], labels, least) for column, value, inside in parts(rows)]
    return tuple(sorted(made, key=lambda s: (not s.enough, s.accuracy, s.name)))


def gaps(found: Sequence[Slice]) -> tuple[Gap, ...]:
    """One for each column with two slices or more that have enough rows; topics are no groups to be fair to."""
    names = dict.fromkeys(s.column for s in found if s.column != TOPIC)
    enough = {name: [s for s in found if s.column == name and s.enough] for name in names}
    return tuple(_gap(name, mine) for name, mine in enough.items() if len(mine) > 1)


def _slice(column: str, value: str, rows: pd.DataFrame, labels: Sequence[str], least: int) -> Slice:
    from scipy.stats import binomtest

    right = int((rows["true"] == rows["label"]).sum())
    interval = binomtest(right, len(rows)).proportion_ci(method="wilson")
    predicted = {label: float((rows["label"] == label).mean()) for label in labels}
    low, high = float(interval.low), float(interval.high)
    return Slice(column, value, len(rows), right / len(rows), low, high, predicted, len(rows) >= least)


def _gap(column: str, mine: Sequence[Slice]) -> Gap:
    best, worst = max(mine, key=lambda s: s.accuracy), min(mine, key=lambda s: s.accuracy)
    shares = {label: [s.predicted[label] for s in mine] for label in mine[0].predicted} or {"": [0.0]}
    label = max(shares, key=lambda name: max(shares[name]) - min(shares[name]))
    return Gap(
        column=column,
        best=best.value,
        worst=worst.value,
        accuracy=best.accuracy - worst.accuracy,
        label=label,
        predicted=max(shares[label]) - min(shares[label]),
        p_value=_equal(mine),
    )


def _equal(mine: Sequence[Slice]) -> float:
    from scipy.stats import chi2_contingency

    right = np.array([round(s.accuracy * s.rows) for s in mine])
    table = np.array([right, [s.rows for s in mine] - right])
    return 1.0 if (table.sum(1) == 0).any() else float(chi2_contingency(table, correction=False).pvalue)
