from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jobs.evaluation.metrics import METRICS
from monitoring.judges import paired
from monitoring.judges.paired import Compared, compare
from tests.monitoring.holdouts import drawn, planted


def of(rows, **changes: Any) -> Compared:
    return compare(*(rows[name].to_numpy() for name in ("true", "champion", "challenger")), **changes)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_scipys_binomial_test(won: int, lost: int) -> None:
    if won + lost:
        assert paired.mcnemar(won, lost) == pytest.approx(binomtest(won, won + lost, alternative="greater").pvalue)
    else:
        assert paired.mcnemar(0, 0) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    ranked = sorted(p_values)
    steps = [min(1.0, (len(ranked) - i) * p) for i, p in enumerate(ranked)]
    assert sorted(paired.holm(p_values)) == [max(steps[: i + 1]) for i in range(len(steps))]
    pairs = sorted(zip(p_values, paired.holm(p_values), strict=True))
    assert all(raw <= adjusted for raw, adjusted in pairs)


def test_holm_by_hand() -> None:
    assert paired.holm([0.04, 0.01, 0.03]) == [0.06, 0.03, 0.06]
    assert paired.holm([]) == []


def test_the_numbers_are_those_one_counts() -> None:
    found = of(planted(both=70, won=12, lost=4, neither=14))
    assert (found.rows, found.champion, found.challenger) == (100, 0.74, 0.82)
    assert (found.won, found.lost) == (12, 4)
    assert found.gain == pytest.approx(0.08)
    assert found.low < found.gain < found.high
    assert found.p_better == pytest.approx(binomtest(12, 16, alternative="greater").pvalue)
    assert found.p_worse == pytest.approx(binomtest(4, 16, alternative="greater").pvalue)


def test_drawing_which_rows_change_places_gives_what_mcnemar_has_exactly() -> None:
    # With as many rows of each label, balanced accuracy is accuracy: one by drawing, one in closed form.
    rows = planted(both=70, won=14, lost=6, neither=10)
    exact, by_draws = of(rows), of(rows, metric="balanced_accuracy")
    assert by_draws.challenger == pytest.approx(exact.challenger)
    assert by_draws.p_better == pytest.approx(exact.p_better, abs=0.02)
    assert by_draws.p_worse == pytest.approx(exact.p_worse, abs=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_it_is_a_mirror(metric: str) -> None:
    rows = planted(both=60, won=20, lost=9, neither=11)
    there, back = (
        of(rows, metric=metric),
        of(rows.rename(columns={"champion": "challenger", "challenger": "champion"}), metric=metric),
    )
    assert there.gain == pytest.approx(-back.gain)
    assert there.p_better == pytest.approx(back.p_worse, abs=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_against_itself_is_neither_better_nor_worse(metric: str) -> None:
    found = of(planted(both=60, won=0, lost=0, neither=11), metric=metric)
    assert (found.gain, found.low, found.high, found.p_better, found.p_worse) == (0, 0, 0, 1, 1)


def test_the_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = of(drawn(rng, 400, 0.80, 0.84), resamples=200)
        covered += found.low <= 0.04 <= found.high
    assert covered >= 88  # 95 expected, under 88 in one of 300 such tests


def test_many_labels_need_no_table_of_them_all() -> None:
    rng = np.random.default_rng(0)
    labels = [str(i) for i in range(60)]
    true, one, other = (rng.choice(labels, 300) for _ in range(3))
    found = compare(true, one, other, metric="macro_f1", resamples=50)
    assert found.p_better > 0.01


def test_no_rows_is_an_error() -> None:
    none = np.array([], np.str_)
    with pytest.raises(ValueError, match="no rows"):
        compare(none, none, none)
