from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jobs.evaluation.footprint import Ratios
from jobs.evaluation.slices import BY
from jobs.spec import EvaluationSpec
from monitoring.judges import harm
from tests.monitoring.holdouts import drawn, planted

SPEC = EvaluationSpec(max_loss_on_slice=0.05)


def slices(*rows: pd.DataFrame, spec: EvaluationSpec = SPEC) -> list[harm.Check]:
    return harm.slices({"old": pd.concat(rows)}, spec)


def test_a_slice_that_fell_far_and_not_by_chance_fails_and_comes_first() -> None:
    good, bad = planted(80, 15, 5, country="de"), planted(60, 2, 20, 8, country="fr")
    first, second = slices(good, bad)
    assert (first.on, first.passed, second.passed) == ("old, country fr", False, True)
    assert first.numbers["gain"] == pytest.approx(-0.2)
    assert first.numbers["adjusted_p_value"] == pytest.approx(2 * first.numbers["p_value_of_harm"])
    assert first.said.startswith(
        "accuracy 0.689 against the champion's 0.889 on 90 rows of old, country fr (-20.0 points"
    )
    assert second.said.endswith("(+10.0 points, no harm)")


@pytest.mark.parametrize(("won", "lost", "said"), [(0, 4, "may be chance"), (40, 60, "no harm"), (0, 30, "more than")])
def test_it_takes_both_a_loss_beyond_the_budget_and_a_test(won: int, lost: int, said: str) -> None:
    # 4 of 40 rows; 20 of 1000 rows, which no chance explains but the budget allows; 30 of 200 rows.
    rows = {4: 40, 60: 1000, 30: 200}[lost]
    (check,) = slices(planted(rows - won - lost, won, lost, country="de"))
    assert check.passed is (lost != 30)
    assert said in check.said


def test_a_slice_that_is_too_small_is_told_and_not_judged() -> None:
    big, small = slices(planted(80, 0, 0, country="de"), planted(0, 0, 20, country="li"))
    assert (big.judged, small.judged, small.passed) == (True, False, True)
    assert "too few to judge by, 30 needed" in small.said


def test_equal_models_are_seldom_refused_for_one_of_many_slices() -> None:
    rng, refused = np.random.default_rng(3), 0
    for _ in range(100):
        rows = drawn(rng, 600, 0.88, 0.88).assign(**{f"{BY}country": np.resize(list("abcdefghij"), 600)})
        refused += not all(check.passed for check in slices(rows))
    assert refused <= 5


@pytest.mark.parametrize(
    ("ratios", "failed"),
    [
        (Ratios(1.1, 1.0, 1.0), set()),
        (Ratios(2.4, 1.8, 1.0), set()),  # over the limit, but it may be noise
        (Ratios(2.4, 2.1, 1.0), {"latency"}),
        (Ratios(1.0, 0.9, 3.0), {"size"}),
    ],
)
def test_latency_and_size_have_limits(ratios: Ratios, failed: set[str]) -> None:
    assert {check.rule for check in harm.costs(ratios, SPEC) if not check.passed} == failed
    free = EvaluationSpec(max_latency_ratio=None, max_size_ratio=None)
    assert all(check.passed and not check.judged for check in harm.costs(ratios, free))
