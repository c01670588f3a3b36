"""Whether confidence can be taken for the chance of being right.

Expected calibration error over bins of equally many rows (Nixon et al. 2019 on why not of equal width: with two labels
half of those stay empty), of the predicted label's confidence (Guo et al. 2017). Few rows give an error above 0 to a
perfect model too; how much is drawn by consistency resampling (Bröcker & Smith 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 10
_LEAST_ROWS = 10
_DRAWS = 500


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence: their mean confidence and the share that was right."""

    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """`error`: mean of |confidence - accuracy| over the bins, weighted by rows.

    `by_chance`: 95 of 100 perfectly calibrated models of the same confidences stay below it on as many rows.
    """

    error: float
    by_chance: float
    bins: tuple[Bin, ...]


def calibration(confidence: NDArray[np.float64], right: NDArray[np.bool_], seed: int = 0) -> Calibration:
    """Of at least one row; `confidence` in [0, 1]. Ten bins, fewer when one would have under ten rows."""
    order = np.argsort(confidence, kind="stable")
    count = max(1, min(_BINS, len(order) // _LEAST_ROWS))
    bounds = np.linspace(0, len(order), count + 1).round().astype(int)
    sure, hit = confidence[order], right[order].astype(float)
    sizes = np.diff(bounds)

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, bounds[:-1], axis=-1) / sizes)

    def error(hits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.abs(means(hits) - means(sure)) @ (sizes / len(order)))

    perfect = np.random.default_rng(seed).random((_DRAWS, len(order))) < sure
    bins = (Bin(int(n), float(c), float(a)) for n, c, a in zip(sizes, means(sure), means(hit), strict=True))
    return Calibration(float(error(hit)), float(np.quantile(error(perfect.astype(float)), 0.95)), tuple(bins))
