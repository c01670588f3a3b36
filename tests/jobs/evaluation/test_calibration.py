from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluation.calibration import calibration

RNG = np.random.default_rng(0)


def test_the_error_is_the_one_counted_by_hand() -> None:
    sure = np.array([0.6] * 20 + [0.9] * 20)
    right = np.array([True] * 10 + [False] * 10 + [True] * 20)
    found = calibration(sure, right)
    assert [b.rows for b in found.bins] == [10, 10, 10, 10]
    assert found.bins[0].confidence == pytest.approx(0.6)
    assert found.error == pytest.approx((0.4 + 0.6 + 0.1 + 0.1) / 4)


@pytest.mark.parametrize(("off", "by_chance"), [(0.0, True), (0.15, False)])
def test_only_a_model_that_is_off_has_more_than_chance_gives(off: float, by_chance: bool) -> None:
    sure = RNG.uniform(0.6, 0.99, 600)
    found = calibration(sure, RNG.random(600) < sure - off)
    assert (found.error <= found.by_chance) is by_chance


def test_chance_gives_less_with_more_rows_and_its_bound_holds() -> None:
    over = 0
    for _ in range(100):
        sure = RNG.uniform(0.5, 1, 200)
        found = calibration(sure, RNG.random(200) < sure)
        over += found.error > found.by_chance
    assert over <= 12  # 5 expected, and 12 or fewer in all but one of 500 such tests
    assert calibration(np.full(1000, 0.8), RNG.random(1000) < 0.8).by_chance < found.by_chance / 1.5


def test_few_rows_make_one_bin() -> None:
    assert len(calibration(np.array([0.7]), np.array([True])).bins) == 1
