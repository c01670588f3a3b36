from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scorecard import Scorecard, score
from jobs.spec import EvaluationSpec
from monitoring.gate import judge

SPEC = EvaluationSpec(max_loss_on_old=0.02)


def card(right: int, rows: int = 100) -> Scorecard:
    """A Scorecard with `right` of `rows` right."""
    true = ["pos", "neg"] * (rows // 2)
    wrong = {"pos": "neg", "neg": "pos"}
    said = [label if i < right else wrong[label] for i, label in enumerate(true)]
    return score(true, said, ["neg", "pos"], resamples=2)


def test_the_first_version_has_nobody_to_beat():
    verdict = judge(None, {"old": card(60)}, SPEC)
    assert verdict.promote
    assert verdict.reasons == ("first version, accuracy 0.600 on 100 rows",)


@pytest.mark.parametrize(("ours", "promote"), [(81, True), (80, False), (79, False)])
def test_without_new_rows_it_must_be_better_on_old(ours, promote):
    assert judge({"old": card(80)}, {"old": card(ours)}, SPEC).promote is promote


@pytest.mark.parametrize(
    ("old", "new", "promote"),
    [(80, 71, True), (78, 71, True), (77, 71, False), (95, 70, False), (80, 70, False), (77, 70, False)],
)
def test_with_new_rows_it_must_be_better_there_and_not_much_worse_on_old(old, new, promote):
    verdict = judge({"old": card(80), "new": card(70)}, {"old": card(old), "new": card(new)}, SPEC)
    assert verdict.promote is promote
    assert len(verdict.reasons) == 2
    assert verdict.numbers["new_challenger"] == new / 100
    assert verdict.numbers["old_champion"] == 0.8


def test_a_reason_says_both_numbers_and_the_difference():
    verdict = judge({"old": card(80), "new": card(70)}, {"old": card(77), "new": card(76)}, SPEC)
    assert verdict.reasons == (
        "accuracy 0.760 against the champion's 0.700 on 100 new rows (+6.0 points, better)",
        "accuracy 0.770 against the champion's 0.800 on 100 old rows (-3.0 points, more than the 2.0 it may lose)",
    )
    assert json.loads(json.dumps(verdict.to_dict()))["promote"] is False


def test_the_metric_is_the_specs():
    lopsided = score(["pos"] * 90 + ["neg"] * 10, ["pos"] * 100, ["neg", "pos"], resamples=2)
    fair = score(["pos"] * 90 + ["neg"] * 10, ["neg"] * 15 + ["pos"] * 75 + ["neg"] * 10, ["neg", "pos"], resamples=2)
    assert not judge({"old": lopsided}, {"old": fair}, EvaluationSpec(metric="accuracy")).promote
    assert judge({"old": lopsided}, {"old": fair}, EvaluationSpec(metric="macro_f1")).promote


@given(*[st.integers(0, 20)] * 4, st.floats(0, 1))
def test_a_promotion_is_never_worse_than_the_spec_allows(old, new, old_champion, new_champion, allowed):
    spec = EvaluationSpec(max_loss_on_old=allowed)
    champion = {"old": card(old_champion, 20), "new": card(new_champion, 20)}
    verdict = judge(champion, {"old": card(old, 20), "new": card(new, 20)}, spec)
    assert verdict.promote == (new > new_champion and (old_champion - old) / 20 <= allowed + 1e-9)
    assert not judge(champion, champion, spec).promote
