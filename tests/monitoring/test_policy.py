from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from jobs.spec import MonitoringSpec
from monitoring.budget import Cost
from monitoring.drift.estimate import Estimate
from monitoring.judges.regression import Regression
from monitoring.policy import KEEP, RETRAIN, ROLL_BACK, WAIT, Decision, chance_of_at_most, decide

from .fakes import BEGAN, drifted, result

SPEC = MonitoringSpec(consecutive=2)
NOW = BEGAN + timedelta(days=2)
ACTIONS = [KEEP, WAIT, RETRAIN]


def judge(found, history=(), spec=SPEC, **changed: Any) -> Decision:
    facts = {
        "labels_waiting": 500,
        "champion_age": timedelta(days=3),
        "running": False,
        "cost": Cost(None, 0.0),
        "regression": None,
    }
    return decide(found, history, NOW, spec, **{**facts, **changed})


def past(found, *, minutes: float = 600, action: str = WAIT) -> Decision:
    return replace(judge(found), at=NOW - timedelta(minutes=minutes), action=action)


def test_a_quiet_window_keeps():
    decision, unmeasured = judge(result()), "accuracy not measured: 0 of 30 labels"
    assert (decision.action, decision.alarm) == (KEEP, False)
    assert decision.reasons == (
        "no drift in 2 columns",
        f"{unmeasured}; estimated 0.880 [0.860, 0.900] vs 0.890 (-1.0 points, not surely more than 5.0)",
    )


@pytest.mark.parametrize(("high", "labelled", "action"), [(0.83, 0, RETRAIN), (0.85, 0, KEEP), (0.83, 100, KEEP)])
def test_an_estimate_that_is_surely_too_low_retrains_while_labels_are_few(high, labelled, action):
    low = Estimate(0.80, 0.77, high, 0.01)
    found = result(estimated=low, accuracy=0.9 if labelled else None, labelled=labelled)
    decision = judge(found)
    assert (decision.action, decision.estimated_accuracy) == (action, 0.80)
    assert any("estimated 0.800" in reason for reason in decision.reasons) == (not labelled)


@pytest.mark.parametrize(
    ("cost", "action", "said"),
    [
        (Cost(None, 0.0), RETRAIN, "a retraining's price is not known yet, 3.6 of 3.6 device-hours left in 30 days"),
        (Cost(0.4, 0.0), RETRAIN, "a retraining takes 0.4 h, 3.6 of 3.6 device-hours left in 30 days"),
        (Cost(0.4, 3.1), RETRAIN, "a retraining takes 0.4 h, 0.5 of 3.6 device-hours left in 30 days"),
        (Cost(0.4, 3.3), WAIT, "a retraining takes 0.4 h, 0.3 of 3.6 device-hours left in 30 days"),
        (Cost(None, 3.6), WAIT, "a retraining's price is not known yet, 0 of 3.6 device-hours left in 30 days"),
        (Cost(0.4, 9.0), WAIT, "a retraining takes 0.4 h, 0 of 3.6 device-hours left in 30 days"),
    ],
)
def test_a_retraining_is_paid_from_the_budget_or_waits(cost, action, said):
    decision = judge(drifted(number=2), [past(drifted())], SPEC.model_copy(update={"budget_hours": 3.6}), cost=cost)
    assert (decision.action, decision.price, decision.spent) == (action, cost.price, cost.spent)
    assert decision.reasons[-1] == said


def test_a_champion_that_is_worse_than_the_version_before_it_is_rolled_back():
    worse = Regression(1, 2, 300, 0.70, 0.90, 1e-9, 0.01 / 6, worse=True)
    decision = judge(drifted(number=2), [past(drifted())], regression=worse)
    assert (decision.action, decision.alarm) == (ROLL_BACK, True)
    assert decision.reasons[-1] == (
        "accuracy 0.700, version 1 has 0.900 on the same 300 rows: worse, p 1e-09, 0.0017 allowed at look 2"
    )
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision
    fine = judge(result(), regression=replace(worse, worse=False))
    assert (fine.action, fine.reasons[-1].split(": ")[1][:22]) == (KEEP, "not shown to be worse,")


def test_after_a_roll_back_nothing_retrains_until_the_cooldown_is_over():
    back = replace(past(drifted(version=2), minutes=30), action=ROLL_BACK)
    waits = judge(drifted(number=2), [past(drifted()), back])
    assert waits.action == WAIT or waits.in_a_row == 1
    again = judge(drifted(number=3), [past(drifted()), back, past(drifted(number=2), minutes=1)])
    assert (again.action, again.reasons[-1]) == (WAIT, "last roll back 30.0 of 60 minutes ago")


def test_enough_new_labels_retrain_without_another_alarm():
    spec = SPEC.model_copy(update={"new_labels": 500})
    decision = judge(result(), spec=spec, labels_waiting=500)
    assert (decision.action, decision.alarm) == (RETRAIN, True)
    assert "500 new labels, 500 are worth a retraining" in decision.reasons
    assert judge(result(), spec=spec, labels_waiting=499).action == KEEP
    # Also where labels show that drift does not hurt: they are there to be learned from.
    assert (
        judge(drifted(number=2, accuracy=0.9, labelled=200), [past(drifted())], spec, labels_waiting=500).action
        == RETRAIN
    )


def test_one_drifted_window_is_not_enough():
    decision = judge(drifted())
    assert (decision.action, decision.alarm, decision.in_a_row) == (KEEP, False, 1)
    assert decision.reasons[0] == "1/2 columns drifted (embedding 0.0970 > 0.0061), 1 in a row, 2 needed"


def test_drift_in_a_row_retrains():
    decision = judge(drifted(number=2), [past(drifted())])
    assert (decision.action, decision.alarm, decision.in_a_row) == (RETRAIN, True, 2)
    assert decision.key == "1-2"


def test_drift_that_does_not_hurt_is_told_and_not_acted_on():
    decision = judge(drifted(number=2, accuracy=0.90, labelled=200), [past(drifted())])
    assert (decision.action, decision.alarm, decision.drifted) == (KEEP, True, True)
    assert decision.reasons[-1].startswith("the drift does not hurt: accuracy is above 0.840, p 0.01")


@pytest.mark.parametrize(("accuracy", "labelled"), [(0.90, 40), (0.85, 200), (0.90, 0)])
def test_drift_that_may_hurt_retrains(accuracy, labelled):
    decision = judge(drifted(number=2, accuracy=accuracy, labelled=labelled), [past(drifted())])
    assert (decision.action, decision.alarm) == (RETRAIN, True)


def test_age_retrains_though_the_drift_does_not_hurt():
    old = SPEC.model_copy(update={"max_age_days": 1})
    decision = judge(drifted(number=2, accuracy=0.95, labelled=300), [past(drifted())], spec=old)
    assert decision.action == RETRAIN


@pytest.mark.parametrize(
    "between", [past(result()), past(drifted(version=7))], ids=["a quiet window", "another version"]
)
def test_a_row_of_drift_is_broken(between):
    assert judge(drifted(), [past(drifted()), between]).in_a_row == 1


def test_accuracy_that_fell_retrains_without_drift():
    decision = judge(result(accuracy=0.71, labelled=134))
    assert (decision.action, decision.alarm) == (RETRAIN, True)
    assert decision.reasons[1].startswith("accuracy 0.710 vs 0.890 on 134 rows (-18.0 points, more than 5.0; p ")


@pytest.mark.parametrize(
    ("accuracy", "labelled", "said"),
    [
        (0.85, 250, "5.0 may be lost"),
        (0.80, 60, "> 0.0005"),
        (0.30, 29, "not measured: 29 of 30"),
        (0.95, 250, "+6.0 points"),
    ],
    ids=["fell by less", "fell by chance", "too few labels", "rose"],
)
def test_no_accuracy_alarm(accuracy, labelled, said):
    decision = judge(result(accuracy=accuracy, labelled=labelled))
    assert (decision.action, decision.alarm) == (KEEP, False)
    assert said in decision.reasons[1]


def test_a_model_that_guesses_cannot_fall_below_nothing():
    assert not judge(result(accuracy=0.0, labelled=250, reference_accuracy=0.04)).alarm


def test_an_old_champion_is_retrained():
    spec = MonitoringSpec(max_age_days=2.5)
    assert judge(result(), spec=spec).action == RETRAIN
    assert judge(result(), spec=spec).reasons[-2:] == (
        "champion is 3.0 days old, over 2.5",
        "500 of 200 labels, cooldown clear",
    )
    assert judge(result(), spec=spec, champion_age=timedelta(days=2)).action == KEEP


def test_an_alarm_waits_and_says_for_what():
    history = [past(drifted(), minutes=12, action=RETRAIN)]
    decision = judge(drifted(accuracy=0.71, labelled=134), history, labels_waiting=134, running=True)
    assert (decision.action, decision.alarm) == (WAIT, True)
    assert decision.reasons[2:] == (
        "134 of 200 labels needed",
        "last retraining 12.0 of 60 minutes ago",
        "a retraining is running",
    )


def test_a_decision_survives_json():
    decision = judge(drifted(accuracy=0.71, labelled=134), [past(drifted())])
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.99))
def test_the_binomial_test_is_scipys(pair, accuracy):
    assert chance_of_at_most(*pair, accuracy) == pytest.approx(binom.cdf(*pair, accuracy), rel=1e-6, abs=1e-12)


@st.composite
def windows(draw):
    kind = draw(st.sampled_from([result, drifted]))
    known = draw(st.integers(0, 250))
    accuracy = draw(st.integers(0, known)) / known if known else None
    return kind(accuracy=accuracy, labelled=known, version=draw(st.integers(1, 2)))


@st.composite
def pasts(draw):
    minutes = sorted(draw(st.lists(st.floats(0, 300), max_size=5)), reverse=True)
    return [past(draw(windows()), minutes=m, action=draw(st.sampled_from(ACTIONS))) for m in minutes]


specs = st.builds(
    MonitoringSpec,
    consecutive=st.integers(1, 3),
    min_labels=st.integers(1, 300),
    cooldown_minutes=st.floats(0, 200),
    max_age_days=st.none() | st.floats(1, 5),
)
situations = {
    "labels_waiting": st.integers(0, 400),
    "champion_age": st.timedeltas(timedelta(), timedelta(days=9)),
    "running": st.booleans(),
}


@given(windows(), pasts(), specs, st.fixed_dictionaries(situations))
def test_a_retraining_is_never_started_against_the_rules(found, history, spec, facts):
    decision = judge(found, history, spec, **facts)
    cooling = any(d.action == RETRAIN and NOW - d.at < timedelta(minutes=spec.cooldown_minutes) for d in history)
    allowed = not cooling and not facts["running"] and facts["labels_waiting"] >= spec.min_labels
    harmless = decision.reasons[-1].startswith("the drift does not hurt")
    acts = decision.alarm and not harmless
    assert decision.action == (RETRAIN if allowed else WAIT) if acts else decision.action == KEEP
    assert not harmless or (decision.drifted and found.accuracy > found.reference_accuracy - spec.accuracy_drop)
    assert decision.reasons
    assert all(decision.reasons)
    assert decision == judge(found, history, spec, **facts)


@given(windows(), pasts(), specs, st.fixed_dictionaries(situations), st.integers(0, 400))
def test_more_evidence_never_does_less(found, history, spec, facts, more):
    before = judge(found, history, spec, **facts)
    labels = judge(found, history, spec, **{**facts, "labels_waiting": facts["labels_waiting"] + more})
    older = judge(found, history, spec, **{**facts, "champion_age": facts["champion_age"] + timedelta(days=more)})
    worse = found.accuracy and replace(found, accuracy=max(0, found.labelled * found.accuracy - more) / found.labelled)
    moved = replace(found, drifted=True, columns=drifted().columns)
    for after in (labels, older, judge(worse or found, history, spec, **facts), judge(moved, history, spec, **facts)):
        assert ACTIONS.index(after.action) >= ACTIONS.index(before.action)
        assert after.alarm >= before.alarm
