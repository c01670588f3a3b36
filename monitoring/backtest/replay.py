"""The prediction log once more, with a stand-in for the model: what `backtest.py` plays its policies on.

No model can be fine-tuned at every step of a replay, so a surrogate answers: the frozen embeddings of the version that
answered the log's first row, whose encoder has seen none of the log's labels, and on them a logistic regression of the
rows that a retraining would have had. It ranks policies; its accuracies are not those of a fine-tuned model. It serves
from the next window on: no gate judges it, and its training takes no time.

What is fitted depends on nothing but how many rows' labels are known: policies that retrain at the same row share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.inputs import Inputs
from jobs.targets.label import PREDICTED
from monitoring.drift import compare, estimate
from monitoring.drift.compare import ColumnDrift, Sample
from monitoring.drift.detect import CONFIDENCE
from monitoring.drift.estimate import Estimate

_ESTIMATED_ROWS = 1000


@dataclass(frozen=True)
class Rows:
    """`table`: input, true (None while nobody has labelled a row). `points`, (n, hidden): embeddings, in its order."""

    table: pd.DataFrame
    points: NDArray[np.float32]

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        return Rows(self.table[chosen], self.points[chosen])

    def and_(self, other: Rows) -> Rows:
        return Rows(
            pd.concat([self.table, other.table], ignore_index=True)[["input", "true"]],
            np.concatenate([self.points, other.points]),
        )


@dataclass(frozen=True)
class Head:
    """A surrogate: what it answers to each row of the log, (n,), how sure it is, (n,), and its own reference.

    `right`: whether it has each row of the reference right. `vocabulary` is of its training inputs.
    """

    label: NDArray[np.str_]
    confidence: NDArray[np.float64]
    reference: Sample
    right: NDArray[np.bool_]
    vocabulary: Sequence[str]

    @property
    def reference_accuracy(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True)
class Replay:
    """`log`, oldest first, has `at` (UTC) in its table, too; `created` is when the version that began was made.

    `train` and `reference` are what it was trained on and measured on. `test_share` of the log's labelled rows go to
    the reference of later surrogates and never to their training, as a retraining splits its feedback.
    """

    train: Rows
    reference: Rows
    log: Rows
    inputs: Inputs
    created: datetime
    test_share: float = 0.2
    _heads: dict[int, Head] = field(default_factory=dict, repr=False)
    _drifts: dict[tuple[int, int, int, float], tuple[ColumnDrift, ...]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.log.table)

    @cached_property
    def at(self) -> list[datetime]:
        return [stamp.to_pydatetime() for stamp in self.log.table["at"]]

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        return np.asarray(self.log.table["true"].notna())

    @cached_property
    def true(self) -> NDArray[np.object_]:
        return self.log.table["true"].to_numpy(object)

    def head(self, known: int) -> Head:
        """The surrogate that was trained when the labels of the first `known` rows had come in; 0 is the first one."""
        if known not in self._heads:
            self._heads[known] = self._fit(known)
        return self._heads[known]

    def drift(self, known: int, start: int, stop: int, level: float) -> tuple[ColumnDrift, ...]:
        """Of rows `start` to `stop` against a surrogate's reference, by the tests of `compare.py` at the same level.

        The embedding is tested only where no column has drifted: the verdict is the same, and it takes seconds.
        Columns: the descriptors that the task itself computes, confidence and predicted label.
        """
        key = (known, start, stop, level)
        if key not in self._drifts:
            head, part = self.head(known), slice(start, stop)
            columns = self._columns(self.log.table["input"].iloc[part], head, part)
            self._drifts[key] = _drift(head.reference, Sample(columns, _wide(self.log.points[part])), level)
        return self._drifts[key]

    def estimated(self, known: int, start: int, stop: int, level: float) -> Estimate:
        head = self.head(known)
        rows = np.random.default_rng(0).permutation(len(head.right))[:_ESTIMATED_ROWS]
        sure = head.reference.columns[CONFIDENCE].to_numpy(float)[rows]
        return estimate.accuracy(sure, head.right[rows], head.confidence[start:stop][:_ESTIMATED_ROWS], level)

    @cached_property
    def _fresh(self) -> NDArray[np.bool_]:
        """Rows that a retraining may use: labelled, and no input of the version that began."""
        old = {self.inputs.key(text) for rows in (self.train, self.reference) for text in rows.table["input"]}
        return self.labelled & np.array([key not in old for key in self._keys], np.bool_)

    @cached_property
    def _held(self) -> NDArray[np.bool_]:
        """By a hash of the input, so that the same one is never on both sides."""
        shares = [int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8 for key in self._keys]
        return np.array(shares) < self.test_share

    @cached_property
    def _keys(self) -> list[str]:
        return [self.inputs.key(text) for text in self.log.table["input"]]

    def _fit(self, known: int) -> Head:
        from sklearn.linear_model import LogisticRegression

        usable = self._fresh & (np.arange(len(self)) < known)
        train = self.train.and_(self.log.where(usable & ~self._held))
        reference = self.reference.and_(self.log.where(usable & self._held))
        model = LogisticRegression(max_iter=2000).fit(train.points, train.table["true"].astype(str))
        labels = np.asarray(model.classes_)
        shares, theirs = model.predict_proba(self.log.points), model.predict_proba(reference.points)
        said, vocabulary = labels[theirs.argmax(axis=1)], self.inputs.vocabulary(train.table["input"])
        columns = self._described(reference.table["input"], vocabulary, theirs.max(axis=1), said)
        return Head(
            labels[shares.argmax(axis=1)],
            shares.max(axis=1),
            Sample(columns, _wide(reference.points)),
            said == reference.table["true"].to_numpy(str),
            vocabulary,
        )

    def _columns(self, inputs: pd.Series, head: Head, part: slice) -> pd.DataFrame:
        return self._described(inputs, head.vocabulary, head.confidence[part], head.label[part])

    def _described(
        self, inputs: pd.Series, vocabulary: Sequence[str], confidence: NDArray[np.float64], label: NDArray[np.str_]
    ) -> pd.DataFrame:
        columns = {CONFIDENCE: confidence, PREDICTED: label}
        return self.inputs.describe(list(inputs), vocabulary).assign(**columns)


def _drift(reference: Sample, current: Sample, level: float) -> tuple[ColumnDrift, ...]:
    alone = reference.columns.shape[1]
    # Without the embedding the family has one test less: the same level for each.
    bare = compare.samples(Sample(reference.columns), Sample(current.columns), level * (alone + 1) / (alone + 2))
    if any(column.drifted for column in bare[:alone]):
        return bare[:alone]
    return compare.samples(reference, current, level)


def _wide(points: NDArray[np.float32]) -> NDArray[np.float64]:
    return points.astype(np.float64)
