"""Metrics of a classifier: scikit-learn's on the rows, and the same on many bootstrap resamples of them at once.

What a resample of rows changes is how often each cell of the confusion matrix, or each row, counts. scikit-learn takes
one resample at a time; METRICS take the tallies of all of them as one array, and the tests hold them to its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""Confusion matrices, shape (..., labels, labels), true label first."""
Values = NDArray[np.float64]

ROC_AUC, LOG_LOSS = "roc_auc", "log_loss"
_LEAST_SHARE = 1e-15  # a probability of 0 for the true label would make the log loss infinite


def of_labels(true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Those of METRICS, by scikit-learn."""
    from sklearn import metrics

    several = len({*true, *predicted}) > 1  # of one label the correlation is 0 by convention, and warns
    occurs = sorted(set(true))
    return {
        "accuracy": float(metrics.accuracy_score(true, predicted)),
        "macro_f1": float(metrics.f1_score(true, predicted, average="macro", zero_division=0)),
        "balanced_accuracy": float(
            metrics.recall_score(true, predicted, labels=occurs, average="macro", zero_division=0)
        ),
        "mcc": float(metrics.matthews_corrcoef(true, predicted)) if several else 0.0,
    }


def of_shares(true: NDArray[np.int64], shares: Values) -> dict[str, float]:
    """`true`: index of the label of each row; `shares`, (rows, labels). No roc_auc unless every label occurs."""
    from sklearn import metrics

    labels = shares.shape[1]
    # Probabilities that float32 rounded add up to a little more or less than 1, which scikit-learn warns of.
    even = shares / shares.sum(1, keepdims=True)
    found = {LOG_LOSS: float(metrics.log_loss(true, even, labels=range(labels)))}
    if len(set(true)) == labels:
        score = even[:, 1] if labels == 2 else even  # noqa: PLR2004 - two labels mirror
        found[ROC_AUC] = float(metrics.roc_auc_score(true, score, multi_class="ovr"))
    return found


def ratio(part: Counts | Values, whole: Counts | Values) -> Values:
    """0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def tallies(counts: Counts) -> Values:
    """Of confusion matrices (..., labels, labels) what the metrics need: shape (..., 3 x labels).

    For each label rows that are right, rows where it is true, rows where it is predicted.
    """
    hits = np.asarray(counts.diagonal(axis1=-2, axis2=-1))
    return np.concatenate([hits, counts.sum(-1), counts.sum(-2)], axis=-1).astype(float)


def _parts(sums: Values) -> tuple[Values, Values, Values]:
    labels = sums.shape[-1] // 3
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels :]


def accuracy(sums: Values) -> Values:
    hits, true, _ = _parts(sums)
    return np.asarray(hits.sum(-1) / true.sum(-1))


def macro_f1(sums: Values) -> Values:
    """Mean over the labels that occur as true or predicted, as scikit-learn has it."""
    hits, true, said = _parts(sums)
    occurs = true + said > 0
    return np.asarray(ratio(2 * hits, true + said).sum(-1) / occurs.sum(-1))


def balanced_accuracy(sums: Values) -> Values:
    """Mean recall of the labels that occur as true."""
    hits, true, _ = _parts(sums)
    return np.asarray(ratio(hits, true).sum(-1) / (true > 0).sum(-1))


def mcc(sums: Values) -> Values:
    """Matthews correlation of many labels, R_K (Gorodkin 2004); 0 where only one label is true or predicted."""
    hits, true, said = _parts(sums)
    rows = true.sum(-1)
    covariance = hits.sum(-1) * rows - (true * said).sum(-1)
    spread = (rows**2 - (said**2).sum(-1)) * (rows**2 - (true**2).sum(-1))
    return ratio(covariance, np.sqrt(spread))


METRICS: Mapping[str, Callable[[Values], Values]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}


def log_loss(true: NDArray[np.int64], shares: Values, weights: Counts) -> Values:
    """Mean -log of the true label's probability.

    `true`: index of the label of each row; `shares`, (rows, labels): probabilities; `weights`, (resamples, rows): how
    often each row counts. One value a resample.
    """
    losses = -np.log(np.clip(shares[np.arange(len(true)), true], _LEAST_SHARE, 1))
    return np.asarray(weights @ losses / weights.sum(1))


def roc_auc(true: NDArray[np.int64], shares: Values, weights: Counts) -> Values:
    """Area under the ROC curve, arguments as above; with more than two labels the mean of each against the rest.

    NaN in a resample in which no label has rows on both sides.
    """
    labels = range(1, 2) if shares.shape[1] == 2 else range(shares.shape[1])  # noqa: PLR2004 - two labels mirror
    areas = np.array([_area(true == label, shares[:, label], weights) for label in labels])
    known = ~np.isnan(areas)
    found = np.where(known, areas, 0).sum(0)
    return np.asarray(np.divide(found, known.sum(0), out=np.full(len(weights), np.nan), where=known.any(0)))


def _area(positive: NDArray[np.bool_], share: Values, weights: Counts) -> Values:
    """Chance that a positive row has the higher share, a tie counting half (Mann-Whitney)."""
    _, place = np.unique(share, return_inverse=True)
    steps = np.zeros((len(share), place.max() + 1))
    steps[np.arange(len(share)), place] = 1
    above, below = (weights * positive) @ steps, (weights * ~positive) @ steps
    won = (above * (below.cumsum(1) - below / 2)).sum(1)
    pairs = above.sum(1) * below.sum(1)
    return np.asarray(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))


SHARE_METRICS: Mapping[str, Callable[[NDArray[np.int64], Values, Counts], Values]] = {
    LOG_LOSS: log_loss,
    ROC_AUC: roc_auc,
}
