"""Accuracy without labels, from how sure the model is: confidence-based performance estimation (CBPE, NannyML 2022).

A calibration curve, fitted where labels are known, turns each confidence into the chance of being right; the mean over
a window is its expected accuracy. It holds while confidence means in the window what it meant in the reference. Where
a model is sure and wrong of inputs that it does not know, the estimate is too high: labels, once there, count instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 200


@dataclass(frozen=True)
class Estimate:
    """Expected accuracy, and the interval in which it lies but for `level` on each side."""

    accuracy: float
    low: float
    high: float
    level: float


def accuracy(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], current: NDArray[np.float64], level: float, seed: int = 0
) -> Estimate:
    """Of a window's confidences `current`, (n,), by a reference's `confidence`, (m,), and whether it was `right`, (m,).

    The interval is normal, with the bootstrap's standard error of the fall from the reference's accuracy, curve and
    window drawn anew each time: the tails of a small `level` would need too many draws to be counted.
    """
    draw = np.random.default_rng(seed)
    falls = []
    for _ in range(_RESAMPLES):
        ref, cur = (draw.integers(0, len(side), len(side)) for side in (right, current))
        falls.append(_fall(confidence[ref], right[ref], current[cur]))
    found = float(right.mean()) - _fall(confidence, right, current)
    reach = NormalDist().inv_cdf(1 - level) * float(np.std(falls))
    return Estimate(found, max(0.0, found - reach), min(1.0, found + reach), level)


def _fall(confidence: NDArray[np.float64], right: NDArray[np.bool_], current: NDArray[np.float64]) -> float:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return float(right.mean() - curve.predict(current).mean())
