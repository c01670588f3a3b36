"""Which labels are likely wrong: confident learning (Northcutt, Jiang & Chuang 2021; cleanlab) on embeddings.

Each row is judged by a logistic regression that has not seen it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIT_ROWS = 20_000  # more adds memory and hardly any accuracy
_PREDICT_ROWS = 10_000


@dataclass(frozen=True)
class Doubts:
    """Of n rows. `doubt`: 1 minus the probability of the given label. `suggested`: index of the likeliest label.

    `wrong`: those that confident learning takes for errors. `judged`: False for rows of a label too rare to judge.
    """

    doubt: NDArray[np.float64]
    suggested: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    judged: NDArray[np.bool_]

    def most_doubtful(self, share: float) -> NDArray[np.int64]:
        """Positions of this share of all rows, rounded up, the most doubtful first."""
        ranked = np.argsort(-np.where(self.judged, self.doubt, -1.0), kind="stable")
        return ranked[: min(math.ceil(len(ranked) * share), int(self.judged.sum()))]


def doubts(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], folds: int, seed: int, most: int = _FIT_ROWS
) -> Doubts:
    """`vectors` has shape (n, hidden), `labels` shape (n,). Labels with fewer than two rows are not judged.

    A fold learns from at most `most` rows.
    """
    from cleanlab.filter import find_label_issues

    counts = np.bincount(labels)
    judged = counts[labels] > 1
    classes, compact = np.unique(labels[judged], return_inverse=True)
    doubt, wrong, suggested = np.zeros(len(labels)), np.zeros(len(labels), bool), labels.copy()
    if len(classes) > 1:
        at = np.flatnonzero(judged)
        chances = out_of_sample(vectors, at, compact, min(folds, int(counts[classes].min())), seed, most)
        doubt[at] = 1 - chances[np.arange(len(at)), compact]
        suggested[at] = classes[chances.argmax(1)]
        # One process: its own pool is slower than the work below a million rows.
        wrong[at] = find_label_issues(compact, chances, n_jobs=1)
    return Doubts(doubt, suggested, wrong, judged)


def out_of_sample(
    vectors: NDArray[np.float32], at: NDArray[np.int64], labels: NDArray[np.int64], folds: int, seed: int, most: int
) -> NDArray[np.float64]:
    """Probabilities, shape (rows, classes), of the rows `at` with labels 0..classes-1, from stratified folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(seed)
    chances = np.empty((len(at), int(labels.max()) + 1))
    for known, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(at, labels):
        some = _some(known, labels, most, draw)
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=1000))
        judge.fit(vectors[at[some]], labels[some])
        for start in range(0, len(held), _PREDICT_ROWS):
            part = held[start : start + _PREDICT_ROWS]
            chances[part] = judge.predict_proba(vectors[at[part]])
    return chances


def _some(
    rows: NDArray[np.int64], labels: NDArray[np.int64], most: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """About `most` of the rows at the most, among them one of each label."""
    if len(rows) <= most:
        return rows
    firsts = rows[np.unique(labels[rows], return_index=True)[1]]
    return np.union1d(firsts, draw.choice(rows, most, replace=False))
