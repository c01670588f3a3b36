from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitoring.drift import estimate

LEVEL = 0.05
SHARES = st.floats(0, 1, width=32)


def drawn(rows: int, seed: int, mean: float):
    """Confidences, and answers that are right as often as the square of the confidence says: an overconfident model."""
    draw = np.random.default_rng(seed)
    confidence = np.clip(draw.normal(mean, 0.1, rows), 0.5, 1)
    return confidence, draw.random(rows) < confidence**2


@pytest.mark.parametrize("mean", [0.95, 0.8, 0.65])
def test_an_estimate_is_near_the_truth_where_confidence_means_the_same(mean):
    reference, right = drawn(1000, 0, 0.85)
    current, truth = drawn(1000, 1, mean)
    found = estimate.accuracy(reference, right, current, LEVEL)
    assert found.low < found.accuracy < found.high
    assert abs(found.accuracy - truth.mean()) < 0.04
    assert abs(current.mean() - truth.mean()) > 0.04  # what confidence alone would say


@pytest.mark.long
def test_windows_like_the_reference_are_seldom_taken_for_worse():
    rung = 0
    for seed in range(40):
        reference, right = drawn(300, 2 * seed, 0.85)
        current, _ = drawn(250, 2 * seed + 1, 0.85)
        rung += estimate.accuracy(reference, right, current, LEVEL).high < right.mean()
    assert rung <= 6  # 2 are expected; more than 6 have a chance of 0.3%


@pytest.mark.long
@settings(max_examples=30)
@given(
    arrays(float, st.integers(2, 40), elements=SHARES),
    arrays(float, st.integers(1, 40), elements=SHARES),
    st.integers(0, 9),
)
def test_any_confidences_give_a_share_in_its_interval_and_the_same_again(reference, current, seed):
    right = np.random.default_rng(seed).random(len(reference)) < reference
    found = estimate.accuracy(reference, right, current, LEVEL, seed)
    assert 0 <= found.low <= found.high <= 1
    assert -1e-9 <= found.accuracy <= 1 + 1e-9
    assert found == estimate.accuracy(reference, right, current, LEVEL, seed)
