from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency

from monitoring.drift import permutation

LEVEL = 0.05


def allowed(runs: int, level: float) -> int:
    """Rejections that a test holding its level exceeds once in ten thousand times."""
    return int(binom.ppf(1 - 1e-4, runs, level))


@pytest.mark.long
def test_mmd_holds_its_level_without_drift():
    rng, runs = np.random.default_rng(1), 300
    rejected = sum(
        permutation.mmd(rng.normal(size=(60, 6)), rng.normal(size=(25, 6)), LEVEL).p_value <= LEVEL for _ in range(runs)
    )
    assert rejected <= allowed(runs, LEVEL)
    assert rejected > 0, "a test that never rejects holds any level"


def test_counts_hold_their_level_without_drift():
    rng, runs, shares = np.random.default_rng(2), 400, [0.6, 0.37, 0.03]
    rejected = sum(
        permutation.counts(rng.multinomial(120, shares), rng.multinomial(50, shares), LEVEL).p_value <= LEVEL
        for _ in range(runs)
    )
    assert 0 < rejected <= allowed(runs, LEVEL)


def test_mmd_sees_a_shift_and_a_change_of_spread():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(200, 16))
    for moved in (rng.normal(size=(80, 16)) + 0.5, 1.5 * rng.normal(size=(80, 16))):
        tested = permutation.mmd(reference, moved, 0.01)
        assert tested.p_value <= 0.01
        assert tested.score > tested.threshold


def test_the_threshold_and_the_p_value_say_the_same():
    rng = np.random.default_rng(4)
    for shift in np.linspace(0, 0.6, 25):
        tested = permutation.mmd(rng.normal(size=(50, 4)), rng.normal(size=(20, 4)) + shift, LEVEL)
        assert (tested.score > tested.threshold) == (tested.p_value <= LEVEL)


def test_draws_end_once_nothing_can_be_flagged_and_go_on_while_it_can():
    rng, level = np.random.default_rng(3), 1e-4
    quiet = permutation.mmd(rng.normal(size=(40, 3)), rng.normal(size=(30, 3)), level)
    assert quiet.p_value > 1 / 1000
    assert quiet.score <= quiet.threshold
    moved = permutation.mmd(rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + 2, level)
    assert moved.p_value == 1 / (permutation.draws(level) + 1)
    assert moved.score > moved.threshold


def test_the_same_data_gives_the_same_answer():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    assert permutation.mmd(a, b, LEVEL) == permutation.mmd(a, b, LEVEL)


def test_equal_rows_are_no_drift():
    assert permutation.mmd(np.ones((10, 3)), np.ones((5, 3)), LEVEL).p_value == 1


@pytest.mark.parametrize("level", [0.2, 0.01, 0.01 / 6])
def test_there_are_draws_enough_to_reach_the_level(level):
    assert 1 / (permutation.draws(level) + 1) < level


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_counts_of_any_shape_give_a_p_value(pairs):
    reference, current = zip(*[*pairs, (1, 1)], strict=True)
    assert 0 < permutation.counts(reference, current, LEVEL).p_value <= 1


def test_counts_agree_with_the_asymptotic_test_where_that_holds():
    reference, current = [300, 200, 100], [100, 90, 60]
    expected = chi2_contingency([reference, current], correction=False)
    found = permutation.counts(reference, current, 0.001)
    assert found.score == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)


def test_a_label_that_never_occurred_before_is_drift():
    assert permutation.counts([300, 300, 0], [100, 100, 30], 0.01).p_value <= 0.01
