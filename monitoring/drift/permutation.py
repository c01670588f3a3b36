"""Two-sample tests calibrated on the data itself: how often does the statistic get this large when rows change sides?

Under no drift reference and window are exchangeable, so a permutation p-value holds its level at any sample size and
for any distribution (Phipson & Smyth 2010 for the `+ 1`). Draws are seeded: the same data gives the same answer. They
end once it is sure that nothing is flagged (Besag & Clifford 1991), which is soon where nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_CHUNK = 500


@dataclass(frozen=True)
class Tested:
    """`score > threshold` says the same as `p_value <= level`."""

    score: float
    p_value: float
    threshold: float


def draws(level: float) -> int:
    """Permutations with which the smallest possible p-value, 1 / (draws + 1), is half of `level`."""
    return math.ceil(2 / level)


def mmd(reference: Matrix, current: Matrix, level: float, seed: int = 0) -> Tested:
    """Test of two embedding samples, (m, d) and (n, d), m and n at least 2.

    The statistic is the unbiased squared maximum mean discrepancy with a Gaussian kernel whose bandwidth is the median
    distance between the samples (Gretton et al. 2012, lemma 6): the very number Evidently's `MMDDriftMethod` reports.
    """
    kernel, n = _kernel(reference, current), len(current)
    own = np.arange(len(kernel)) >= len(reference)
    score = float(_mmd(kernel, own[:, None].astype(np.float64))[0])
    return _tested(score, _permuted(kernel, n, np.random.default_rng(seed)), level)


def counts(reference: Sequence[int], current: Sequence[int], level: float, seed: int = 0) -> Tested:
    """Test of two rows of counts over the same labels, each row with at least one.

    The statistic is Pearson's chi-square of the 2 x k table; its null distribution is drawn with both margins fixed, so
    that rare labels need no minimum and the reference's own sampling error is counted (Evidently's chi-square takes the
    reference for the truth).
    """
    ref, cur = np.asarray(reference, np.int64), np.asarray(current, np.int64)
    pooled = ref + cur
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(pooled, int(cur.sum()), size=draws(level))
    expected = pooled * (cur.sum() / pooled.sum())
    scale = np.where(expected > 0, expected, 1) * (ref.sum() / pooled.sum())

    def chi_square(rows: NDArray[np.int64]) -> Matrix:
        return np.asarray(((rows - expected) ** 2 / scale).sum(axis=-1))

    return _tested(float(chi_square(cur)), [chi_square(drawn)], level)


def _tested(score: float, null: Iterable[Matrix], level: float) -> Tested:
    """Draws `null` part by part until `draws(level)`, or until too many are as large as `score`."""
    total = draws(level)
    allowed = math.floor(level * (total + 1) + 1e-9) - 1
    drawn, as_large = np.empty(0), 0
    for part in null:
        drawn = np.concatenate([drawn, part[: total - len(drawn)]])
        # Equal scores come out unequal in the last digits.
        as_large = int((drawn >= score - 1e-12 * max(1.0, abs(score))).sum())
        if as_large > allowed or len(drawn) == total:
            break
    return Tested(score, (as_large + 1) / (len(drawn) + 1), float(np.sort(drawn)[::-1][allowed]))


def _kernel(reference: Matrix, current: Matrix) -> Matrix:
    rows = np.vstack([reference, current]).astype(np.float64)
    norms = (rows**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0)
    np.fill_diagonal(squared, 0)
    median = float(np.median(np.sqrt(squared[: len(reference), len(reference) :])))
    return np.asarray(np.exp(-squared / (median**2 or 1.0)))


def _mmd(kernel: Matrix, own: Matrix) -> Matrix:
    """One statistic for each column of `own`, (rows, draws), which is 1 where a row is in the second sample."""
    total, n = len(kernel), own[:, 0].sum()
    m = total - n
    product = kernel @ own
    within, reach = (own * product).sum(axis=0), product.sum(axis=0)
    across = reach - within
    rest = kernel.sum() - reach - across
    # The kernel of a row with itself is 1 and does not count.
    return np.asarray((rest - m) / (m * (m - 1)) + (within - n) / (n * (n - 1)) - 2 * across / (m * n))


def _permuted(kernel: Matrix, n: int, rng: np.random.Generator) -> Iterator[Matrix]:
    """Statistics of rows that change sides, `_CHUNK` at a time, without end."""
    while True:
        ranks = rng.random((len(kernel), _CHUNK))
        own = np.zeros_like(ranks)
        np.put_along_axis(own, np.argpartition(ranks, n, axis=0)[:n], 1.0, axis=0)
        yield _mmd(kernel, own)
