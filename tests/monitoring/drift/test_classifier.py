from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from monitoring.drift.classifier import p_value


def both(reference: int, current: int, seed: int, columns: int = 6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(reference, columns)), rng.normal(size=(current, columns))


def test_columns_that_only_move_together_are_seen():
    reference, current = both(300, 300, 0)
    current[:, 1] = 0.8 * current[:, 0] + 0.6 * current[:, 1]
    assert p_value(reference, current) < 1e-4


def test_a_wider_column_is_seen_without_its_mean_moving():
    reference, current = both(400, 400, 1)
    current[:, 2] *= 2
    assert p_value(reference, current) < 1e-3


def test_the_level_holds_when_nothing_has_changed():
    rung = sum(p_value(*both(60, 40, seed, 3)) <= 0.05 for seed in range(300))
    assert rung <= binom.ppf(0.9999, 300, 0.05)


def test_neither_unit_nor_outlier_matters():
    reference, current = both(200, 100, 2)
    scaled = reference * 1e6, current * 1e6
    assert p_value(*scaled) == p_value(reference, current)
    huge = current.copy()
    huge[np.argmax(huge[:, 0]), 0] = 1e12
    assert 0 < p_value(reference, huge) <= 1


def test_many_columns_have_no_products():
    reference, current = both(80, 80, 3, columns=60)
    assert p_value(reference, current + np.r_[2.0, np.zeros(59)]) < 1e-3


@pytest.mark.parametrize("rows", [(19, 300), (300, 19), (0, 0)])
def test_too_few_rows_say_nothing(rows):
    assert p_value(*both(*rows, 0)) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_any_rows_give_a_chance_and_the_same_again(reference, current, columns, seed, rounded):
    sides = both(reference, current, seed, columns)
    if rounded:
        sides = tuple(np.round(side) for side in sides)
    found = p_value(*sides, seed)
    assert 0 <= found <= 1
    assert found == p_value(*sides, seed)
