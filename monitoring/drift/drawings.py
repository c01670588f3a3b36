"""Small SVG pictures of a reference and a window, to stand inside a page: `was` and `now` are its CSS classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_WIDE, _HIGH, _MAP = 320, 90, 220
_BINS = 20
_EDGE = 8
_OUTER = 0.5
"""Percent of all values on each side that are drawn in the outermost bin, where they would squeeze the rest."""
_MOST_DOTS = 400


def histogram(before: Numbers, now: Numbers) -> str:
    """Shares of both sides in the same bins, from values of shape (rows,) that are finite."""
    low, high = np.percentile(np.concatenate([before, now]), [_OUTER, 100 - _OUTER])
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = [np.histogram(np.clip(side, low, high), _BINS, (low, high))[0] / len(side) for side in (before, now)]
    top = max(float(side.max()) for side in shares)
    was, is_now = (_steps(side / top) for side in shares)
    return (
        f'<svg viewBox="0 0 {_WIDE} {_HIGH + 14}" role="img"><title>share of rows by value</title>'
        f'<path class="was" d="{was}"/><path class="now" d="{is_now}"/>'
        f'<text x="0" y="{_HIGH + 12}">{low:.3g}</text>'
        f'<text x="{_WIDE}" y="{_HIGH + 12}" text-anchor="end">{high:.3g}</text></svg>'
    )


def dots(before: Numbers, now: Numbers, marks: Sequence[tuple[float, float]]) -> str:
    """Points in a plane, (rows, 2), at most 400 a side, and numbered marks over them."""
    low, high = np.percentile(np.vstack([before, now]), [_OUTER, 100 - _OUTER], axis=0)
    room = np.array([_WIDE, _MAP]) - 2 * _EDGE

    def place(points: Numbers) -> Numbers:
        return np.asarray((np.clip(points, low, high) - low) / np.where(high > low, high - low, 1) * room + _EDGE)

    def drawn(points: Numbers) -> str:
        few = points[:: max(1, -(-len(points) // _MOST_DOTS))]
        return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in place(few))

    numbered = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="9"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{number}</text>'
        for number, (x, y) in enumerate(place(np.reshape(marks, (-1, 2))), 1)
    )
    return (
        f'<svg viewBox="0 0 {_WIDE} {_MAP}" class="map" role="img"><title>inputs, like ones near each other</title>'
        f'<path class="was" d="{drawn(before)}"/><path class="now" d="{drawn(now)}"/>{numbered}</svg>'
    )


def _steps(heights: Numbers) -> str:
    """An outline from the ground and back to it; heights from 0 to 1."""
    wide = _WIDE / len(heights)
    bins = "".join(f"V{_HIGH - h * (_HIGH - 4):.1f}H{(i + 1) * wide:.0f}" for i, h in enumerate(heights))
    return f"M0 {_HIGH}{bins}V{_HIGH}"
