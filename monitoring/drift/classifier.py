"""The domain classifier: can a model tell which side a row is from, when it has not seen the row?

A classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545): half of each side trains a logistic regression,
the other half is ranked by it, and Mann and Whitney's test asks whether the window's rows rank higher. The regression
has every column, its square and every product of two, so that columns which only move together are seen, and an L1
penalty, without which 200 products drown one that matters. Rows that were not trained on are exchangeable when nothing
has changed, so the p-value holds its level whatever the model learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_PENALTY = 0.05  # inverse strength; bench/drift.py has the power it gives
_MOST_COLUMNS = 40  # of which products are made: they grow with the square
_LEAST_ROWS = 20  # a side: ten to learn from and ten to judge by


def p_value(reference: Matrix, current: Matrix, seed: int = 0) -> float:
    """Of two samples, (m, d) and (n, d), of the same distribution; 1 where a side has too few rows to learn from."""
    if min(len(reference), len(current)) < _LEAST_ROWS:
        return 1.0
    from scipy.stats import mannwhitneyu

    rows, side = _normal(np.vstack([reference, current])), np.repeat([0, 1], [len(reference), len(current)])
    learn = _halves(side, np.random.default_rng(seed))
    scores = _scores(rows[learn], side[learn], rows[~learn])
    ours = side[~learn] == 1
    if np.ptp(scores) == 0:  # nothing was learned
        return 1.0
    return float(mannwhitneyu(scores[ours], scores[~ours], alternative="greater").pvalue)


def _halves(side: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """True for a drawn half of each side."""
    chosen = np.zeros(len(side), np.bool_)
    for which in (0, 1):
        at = np.flatnonzero(side == which)
        chosen[rng.permutation(at)[: len(at) // 2]] = True
    return chosen


def _normal(rows: Matrix) -> Matrix:
    """Every column by its normal scores: an outlier counts as the largest, and no unit matters."""
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(rows, axis=0) - 0.5) / len(rows)))


def _scores(rows: Matrix, side: NDArray[np.int64], others: Matrix) -> Matrix:
    """How much each of `others` looks like side 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    degree = 2 if rows.shape[1] <= _MOST_COLUMNS else 1
    model = make_pipeline(
        PolynomialFeatures(degree, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=_PENALTY, l1_ratio=1, solver="liblinear", random_state=0),
    )
    return np.asarray(model.fit(rows, side).decision_function(others))
