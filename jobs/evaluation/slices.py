"""Parts of the test rows that may fare worse than the whole: by the values of named columns and by topic.

Topics are clusters of the texts themselves (TF-IDF, LSA and k-means, as scikit-learn has them), not of a model's
embeddings: those follow what the model predicts, and two models would be compared on parts that one of them drew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.vocabulary import words

BY = "by "
"""Begins the name of each column of answers that slices them; "" is a row without a value."""
TOPIC = "found topic"

_DIMENSIONS = 30
_TYPICAL = 3
_ROWS_A_TOPIC = 20
_WIDE_VOCABULARY = 5000


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
    it is largest (demographic parity difference). `p_value`: chance that equal slices look as different in accuracy
    (chi-square test).
    """

    column: str
    best: str
    worst: str
    accuracy: float
    label: str
    predicted: float
    p_value: float


def topics(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """A topic for each text, named by its most typical words; "" for all when there are too few texts for two."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from sklearn.preprocessing import normalize

    count = min(count, len(texts) // _ROWS_A_TOPIC)
    bags = [[w for w in words(text) if w not in ENGLISH_STOP_WORDS] for text in texts]
    if count < 2 or len({word for bag in bags for word in bag}) <= count:  # noqa: PLR2004 - one topic says nothing
        return [""] * len(texts)
    counter = TfidfVectorizer(analyzer=lambda bag: bag, sublinear_tf=True, max_features=_WIDE_VOCABULARY)
    weights = counter.fit_transform(bags)
    width = min(_DIMENSIONS, weights.shape[1] - 1)
    points = normalize(TruncatedSVD(width, random_state=seed).fit_transform(weights))
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(points)
    names = _names(weights, found, counter.get_feature_names_out())
    return [names[number] for number in found]


def _names(weights: NDArray[np.float64], found: NDArray[np.int32], known: NDArray[np.str_]) -> dict[int, str]:
    """The words whose mean weight inside stands out most from that outside."""
    made: dict[int, str] = {}
    for number in sorted(set(found)):
        inside = found == number
        lift = np.asarray(weights[inside].mean(0) - weights[~inside].mean(0)).ravel()
        made[number] = ", ".join(known[np.argsort(-lift, kind="stable")[:_TYPICAL]])
    return made


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
    shares = {label: [s.predicted[label] for s in mine] for label in mine[0].predicted}
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
