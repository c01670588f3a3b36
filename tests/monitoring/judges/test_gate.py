"""The gate's promises. What they cost over ranges of accuracy, rows and correlation is in `bench/gate.py`."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.evaluation.footprint import Ratios
from jobs.spec import EvaluationSpec
from monitoring.judges import gate
from monitoring.judges.gate import Verdict
from tests.monitoring.holdouts import drawn, planted

SPEC = EvaluationSpec(max_loss_on_old=0.02, bootstrap=50)
SAME = Ratios(1.0, 0.95, 1.0)
TRIALS = 200


def judge(*rows: pd.DataFrame, spec: EvaluationSpec = SPEC, ratios: Ratios = SAME) -> Verdict:
    return gate.judge(pd.concat(rows, ignore_index=True), ratios, spec)


def promoted(draw: Callable[[np.random.Generator], pd.DataFrame]) -> int:
    """Of 200 trials; each row is in one of five slices as well."""
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(TRIALS):
        rows = draw(rng)
        count += judge(rows.assign(**{"by topic": rng.choice(list("abcde"), len(rows))})).promote
    return count


@pytest.mark.long
def test_a_worse_challenger_is_refused_in_at_least_95_of_100_trials() -> None:
    assert promoted(lambda rng: drawn(rng, 1000, 0.88, 0.87)) <= 0.05 * TRIALS


@pytest.mark.long
def test_an_equal_challenger_is_not_promoted_in_at_least_95_of_100_trials() -> None:
    assert promoted(lambda rng: drawn(rng, 1000, 0.88, 0.88)) <= 0.05 * TRIALS


@pytest.mark.long
def test_a_challenger_better_by_3_points_is_promoted_in_at_least_80_of_100_trials() -> None:
    assert promoted(lambda rng: drawn(rng, 1000, 0.88, 0.91)) >= 0.80 * TRIALS


def test_a_better_challenger_that_fails_one_slice_is_refused() -> None:
    better, harmed = planted(700, 60, 10, 30, country="de"), planted(150, 2, 40, 8, country="fr")
    verdict = judge(better, harmed)
    assert [(check.rule, check.on) for check in verdict.checks if not check.passed] == [
        ("better", "old"),
        ("slice", "old, country fr"),
    ]
    verdict = judge(pd.concat([better, better]), harmed)
    assert [check.on for check in verdict.checks if not check.passed] == ["old, country fr"]
    assert not verdict.promote
    assert len(verdict.reasons) == 2
    assert "of old, country fr (-19.0 points, more than the 5.0 it may lose: p " in verdict.reasons[1]


@pytest.mark.parametrize("ratios", [Ratios(3.0, 2.5, 1.0), Ratios(1.0, 0.9, 2.5)])
def test_a_better_challenger_that_costs_too_much_is_refused(ratios: Ratios) -> None:
    better = planted(800, 60, 20)
    assert judge(better).promote
    verdict = judge(better, ratios=ratios)
    assert not verdict.promote
    assert "times the champion's" in verdict.reasons[-1]


def test_a_first_version_must_beat_the_commonest_label() -> None:
    rows = pd.DataFrame(
        {"true": ["a"] * 60 + ["b"] * 40, "challenger": ["a"] * 60 + ["b"] * 30 + ["a"] * 10, "slice": "old"}
    )
    verdict = gate.first(rows, SPEC)
    assert verdict.promote
    assert verdict.reasons == (
        "first version, accuracy 0.900 on 100 rows (better than always answering 'a', 0.600: p 9.3e-10 <= 0.05)",
    )


@pytest.mark.parametrize("right", [0, 4])
def test_a_first_version_that_answers_one_label_or_hardly_another_is_refused(right: int) -> None:
    rows = pd.DataFrame(
        {
            "true": ["a"] * 60 + ["b"] * 40,
            "challenger": ["a"] * 60 + ["b"] * right + ["a"] * (40 - right),
            "slice": "old",
        }
    )
    verdict = gate.first(rows, SPEC)
    assert not verdict.promote
    assert "no better than always answering 'a', 0.600" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("old", "new", "promote"),
    [
        ((80, 5, 5), (60, 20, 4), True),
        ((80, 5, 7), (60, 20, 4), True),  # 2 points lost on the old: what it may lose
        ((80, 5, 8), (60, 20, 4), False),  # 3 points
        ((80, 9, 0), (60, 10, 8), False),  # better on the new, perhaps by chance
        ((80, 9, 0), (60, 8, 8), False),
    ],
)
def test_with_new_rows_it_must_be_better_there_and_not_much_worse_on_old(old, new, promote) -> None:
    verdict = judge(*(planted(*kinds, 100 - sum(kinds), part) for kinds, part in ((old, "old"), (new, "new"))))
    assert verdict.promote is promote
    assert len(verdict.reasons) == 2
    assert verdict.numbers["new_challenger"] == pytest.approx((new[0] + new[1]) / 100)
    assert verdict.numbers["old_champion"] == pytest.approx((old[0] + old[2]) / 100)


def test_a_reason_says_both_numbers_the_difference_and_the_chance() -> None:
    verdict = judge(planted(70, 7, 10, 13), planted(60, 16, 10, 14, "new"))
    new, old = verdict.reasons
    assert new.startswith("accuracy 0.760 against the champion's 0.700 on 100 new rows (+6.0 points [")
    assert new.endswith("], may be chance: p 0.16 > 0.05, 16 rows won and 10 lost)")
    assert old.startswith("accuracy 0.770 against the champion's 0.800 on 100 old rows (-3.0 points [")
    assert old.endswith("], more than the 2.0 it may lose)")
    tree = json.loads(json.dumps(verdict.to_dict()))
    assert tree["promote"] is False
    assert [check["rule"] for check in tree["checks"]] == ["better", "forgetting", "latency", "size"]
    assert tree["numbers"]["new_p_value"] == pytest.approx(0.163, abs=0.001)


def test_the_metric_is_the_specs() -> None:
    true = ["pos"] * 180 + ["neg"] * 20
    lopsided, fair = ["pos"] * 200, ["neg"] * 20 + ["pos"] * 160 + ["neg"] * 20
    rows = pd.DataFrame({"true": true, "champion": lopsided, "challenger": fair, "slice": "old"})
    assert not judge(rows).promote
    assert judge(rows, spec=EvaluationSpec(metric="macro_f1")).promote
    assert judge(rows, spec=EvaluationSpec(metric="balanced_accuracy")).promote


@settings(max_examples=50)
@given(*[st.integers(0, 20)] * 4, st.floats(0, 1))
def test_a_promotion_is_never_worse_than_the_spec_allows(won, lost, new_won, new_lost, allowed) -> None:
    spec = EvaluationSpec(max_loss_on_old=allowed, bootstrap=2)
    old, new = planted(20, won, lost), planted(20, new_won, new_lost, part="new")
    verdict = judge(old, new, spec=spec)
    if verdict.promote:
        assert new_won > new_lost
        assert (lost - won) / len(old) <= allowed + 1e-9
    champion = old.assign(challenger=old["champion"]), new.assign(challenger=new["champion"])
    assert not judge(*champion, spec=spec).promote
