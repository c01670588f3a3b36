"""Which rows are most worth a label: uncertain, new to the model, and unlike each other. Pure, over arrays.

Weighted k-means (Zhdanov 2019, "Diverse mini-batch Active Learning", arXiv:1901.05954): as many clusters of the
embeddings as rows are wanted, each row with the weight of what it may teach, and of each cluster the row nearest to its
centre. On the example's shift it is worth hardly more than random rows, and so is BADGE (`bench/labels.py`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_REFERENCE = 2000
_LEAST_WEIGHT = 1e-3  # a row that teaches nothing is still a row: k-means does not take weights that are all 0


@dataclass(frozen=True)
class Choice:
    """`rows`: positions, the heaviest first. `like`: for each, how many candidates it stands for, itself among them."""

    rows: NDArray[np.int64]
    like: NDArray[np.int64]


def uncertainty(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - the margin between the two likeliest labels; `scores` has shape (n, labels), two labels at least."""
    top = np.sort(scores, axis=1)[:, -2:]
    return 1 - (top[:, 1] - top[:, 0])


def novelty(points: NDArray[np.float32], reference: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """How far each of `points`, (n, hidden), is from its nearest row of `reference`, (m, hidden), from 0 to 1.

    It is the share of reference rows that are nearer to another one than that; 0 where there is nothing to compare.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(reference) < 2:  # noqa: PLR2004 - one row has no neighbour
        return np.zeros(len(points))
    if len(reference) > _MOST_REFERENCE:
        reference = reference[np.random.default_rng(seed).choice(len(reference), _MOST_REFERENCE, replace=False)]
    known = NearestNeighbors(n_neighbors=1).fit(reference)
    usual = np.sort(known.kneighbors()[0][:, 0])
    shares: NDArray[np.float64] = np.searchsorted(usual, known.kneighbors(points)[0][:, 0]) / len(usual)
    return shares


def weight(uncertain: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a label may teach, from 0 to 1: of two rows that are as uncertain the newer one counts up to twice."""
    return uncertain * (1 + new) / 2


def choose(
    points: NDArray[np.float32], weights: NDArray[np.float64], same: NDArray[np.int64], rows: int, seed: int = 0
) -> Choice:
    """`rows` of n candidates, or all where there are fewer. `points` has shape (n, hidden), `weights` and `same` (n,).

    Candidates with an equal number in `same` are the same input: one of them is taken, unless all others are, too.
    """
    heaviest = np.argsort(-weights, kind="stable")
    _, firsts, copies = np.unique(same[heaviest], return_index=True, return_counts=True)
    order = np.argsort(firsts)
    one_each, like = heaviest[firsts[order]], np.ones(len(points), np.int64)
    like[one_each] = copies[order]
    if len(one_each) > rows:
        taken, sizes = _centres(points[one_each], weights[one_each], like[one_each], rows, seed)
        like[one_each[taken]] = sizes
        taken = one_each[taken]
    else:
        taken = one_each
    rest = heaviest[~np.isin(heaviest, taken)]
    # Inputs before their copies: those not taken yet of one each come first.
    rest = np.concatenate([rest[np.isin(rest, one_each)], rest[~np.isin(rest, one_each)]])
    chosen = np.concatenate([taken, rest[: max(0, rows - len(taken))]])
    chosen = chosen[np.argsort(-weights[chosen], kind="stable")]
    return Choice(chosen, like[chosen])


def _centres(
    points: NDArray[np.float32], weights: NDArray[np.float64], copies: NDArray[np.int64], rows: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each cluster the position nearest to its centre, and how many candidates it has; fewer where points agree."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: the caller fills up
        made = KMeans(rows, n_init=1, random_state=seed).fit(points, sample_weight=np.maximum(weights, _LEAST_WEIGHT))
    away = np.linalg.norm(points - made.cluster_centers_[made.labels_], axis=1)
    order = np.lexsort((away, made.labels_))
    _, at = np.unique(made.labels_[order], return_index=True)
    taken = order[at]
    return taken, np.bincount(made.labels_, copies, rows).astype(np.int64)[made.labels_[taken]]
