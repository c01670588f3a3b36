from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binomtest, mannwhitneyu

from jobs.spec import CanarySpec
from monitoring.judges import canary
from monitoring.judges.canary import (
    DROP,
    FIRST_LOOK,
    PROMOTE,
    WAIT,
    CanaryVerdict,
    judge,
    slower,
    slower_pairs,
)
from tests.monitoring.fakes import BEGAN

CHAMPION, CANARY = 1, 2
SPEC = CanarySpec(share=0.5, rows=200)  # type: ignore[call-arg]
STRICT = SPEC.model_copy(update={"max_fault_share": 0.0, "max_latency_ratio": 1.0, "max_loss": 0.0, "rows": 10**6})


def side(
    rng: np.random.Generator,
    version: int,
    count: int,
    *,
    accuracy: float = 0.9,
    faults: float = 0.0,
    times: float = 1.0,
    labelled: float = 0.0,
    dealt: int | None = None,
) -> pd.DataFrame:
    """What a version did with `count` inputs of different keys, in batches of one to four rows; those of like `dealt`
    are alike.
    """
    sizes = (rng if dealt is None else np.random.default_rng(dealt)).integers(1, 5, count)
    batch = np.repeat(np.arange(count), sizes)[:count]
    failed = (rng.random(count) < faults)[batch]
    took = (times * rng.lognormal(0, 0.3, count))[batch] * sizes[batch]
    right, known = rng.random(count) < accuracy, rng.random(count) < labelled
    return pd.DataFrame(
        {
            "prediction_id": [f"{version}.{i:05d}" for i in range(count)],
            "at": [BEGAN + timedelta(seconds=i) for i in range(count)],
            "version": version,
            "kind": "answer",
            "key": [f"{version}-{i}" for i in range(count)],
            "label": pd.Series(np.where(right, "pos", "neg"), dtype=object).mask(failed, None),
            "fault": pd.Series(["ValueError: no"] * count, dtype=object).mask(~failed, None),
            "batch": [f"{version}-{i}" for i in batch],
            "batch_rows": sizes[batch],
            "seconds": pd.Series(took).mask(failed),
            "true": pd.Series(["pos"] * count, dtype=object).mask(~known | failed, None),
        }
    )


def both(count: int, seed: int = 0, dealt: int | None = None, **changed: float) -> pd.DataFrame:
    """As many rows of either; `changed` is how the canary differs."""
    rng = np.random.default_rng(seed)
    same: dict[str, Any] = {"labelled": changed.pop("labelled", 0.0), "dealt": dealt}
    parts = [side(rng, CHAMPION, count, **same), side(rng, CANARY, count, **same | changed)]
    return pd.concat(parts, ignore_index=True).sort_values(["at", "prediction_id"], ignore_index=True)


def shadowed(count: int, seed: int = 0, **changed: float) -> pd.DataFrame:
    """Both on the same inputs, in the same batches."""
    rows = both(count, seed, dealt=seed, **changed)
    rows.loc[rows["version"] == CANARY, "kind"] = "shadow"
    rows["prediction_id"] = "1." + rows["prediction_id"].astype(str).str[2:]
    rows["key"] = rows["key"].astype(str).str[2:]
    rows["true"] = rows.groupby("prediction_id")["true"].transform("first")
    return rows


def said(verdict: CanaryVerdict) -> str:
    return "\n".join(verdict.reasons)


@pytest.mark.parametrize("made", [both, shadowed])
@pytest.mark.parametrize("labelled", [0.0, 0.5])
def test_one_that_is_as_good_is_promoted_once_it_has_answered_enough(made, labelled):
    found = judge(made(300, seed=1, labelled=labelled), CANARY, None, SPEC)
    assert found.action == PROMOTE
    assert (found.trial.rows, found.trial.look) == (300, 1)
    assert CanaryVerdict.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    early = judge(made(150, labelled=labelled), CANARY, None, SPEC)
    assert (early.action, early.reasons[-1]) == (WAIT, "150 of 200 answers")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"faults": 0.25}, "batches failed, the champion's 0.0% of"),
        ({"times": 3.0}, "times the champion's time, 1.5 allowed: worse (p "),
        ({"accuracy": 0.5, "labelled": 1.0}, "the champion's 0.9"),
    ],
)
@pytest.mark.parametrize("made", [both, shadowed])
def test_one_that_fails_is_slow_or_wrong_is_dropped_before_it_has_answered_all(made, changed, reason):
    found = judge(made(150, **changed), CANARY, None, SPEC)
    assert found.action == DROP
    assert [check.worse for check in found.trial.checks].count(True) == 1
    assert reason in said(found)
    assert CanaryVerdict.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_one_that_always_fails_is_dropped_at_the_first_look():
    found = judge(both(FIRST_LOOK, faults=1.0), CANARY, None, SPEC)
    assert (found.action, found.trial.rows, found.trial.asked) == (DROP, 0, FIRST_LOOK)


def test_one_that_could_not_be_loaded_is_dropped_without_a_look():
    rows = both(5)
    load = rows.iloc[[0]].assign(version=CANARY, kind="load", fault="answers the golden inputs otherwise", label=None)
    found = judge(pd.concat([rows, load]), CANARY, None, SPEC)
    assert (found.action, found.trial) == (DROP, None)
    assert said(found) == "version 2 could not be loaded: answers the golden inputs otherwise"
    assert CanaryVerdict.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_loss_that_is_allowed_drops_nobody():
    rows = both(3000, times=1.2, accuracy=0.89, labelled=1.0)
    found = judge(rows, CANARY, None, SPEC)
    latency = next(check for check in found.trial.checks if check.rule == "latency")
    assert latency.p_value < 1e-6
    assert not latency.beyond
    assert found.action == PROMOTE


def test_what_looks_worse_and_may_be_chance_is_waited_for_and_not_for_ever():
    rows = both(250, seed=1, accuracy=0.86, labelled=0.25)
    found = judge(rows, CANARY, None, SPEC)
    accuracy = found.trial.checks[2]
    assert (found.action, accuracy.beyond, accuracy.worse) == (WAIT, True, False)
    assert found.reasons[-1] == "more answers must show whether accuracy is chance"
    assert judge(rows, CANARY, None, SPEC.model_copy(update={"rows": 60})).action == PROMOTE


def test_it_is_not_promoted_with_nothing_to_compare_it_with():
    found = judge(both(300).query("version == @CANARY"), CANARY, None, SPEC)
    assert (found.action, found.reasons[-1]) == (WAIT, "0 of 20 answers of the champion to compare with")
    with pytest.raises(ValidationError, match="share 1 leaves the champion nothing"):
        CanarySpec(share=1.0)


def test_labels_can_be_waited_for():
    spec = SPEC.model_copy(update={"labels": 50})
    assert judge(both(300), CANARY, None, spec).reasons[-1] == "0 of 50 labels"
    assert judge(both(300, labelled=0.5), CANARY, None, spec).action == PROMOTE


def test_a_key_counts_once_however_often_it_asks():
    rows = both(300)
    rows.loc[rows["version"] == CANARY, "key"] = "one popular text"
    found = judge(rows, CANARY, None, SPEC)
    assert (found.action, found.trial) == (WAIT, None)
    assert said(found) == f"version 2 was asked 1 different keys; the first look is at {FIRST_LOOK}"


def test_agreement_is_told_where_both_answered_the_same():
    rows = shadowed(400, accuracy=0.9)
    agreement = judge(rows, CANARY, None, SPEC).trial.agreement
    assert agreement == pytest.approx(0.9 * 0.9 + 0.1 * 0.1, abs=0.06)
    assert judge(both(400), CANARY, None, SPEC).trial.agreement is None


def test_a_verdict_stands_until_enough_more_was_seen():
    rows = both(400)
    first = judge(rows.head(200), CANARY, None, SPEC)
    assert (first.trial.asked, first.trial.look) == (100, 1)
    assert judge(rows.head(200), CANARY, first, SPEC) is first
    assert judge(rows.head(240), CANARY, first, SPEC) is first
    second = judge(rows.head(260), CANARY, first, SPEC)
    assert (second.trial.look, second.trial.level) == (2, pytest.approx(0.05 / 6 / 3))
    # The next canary begins anew.
    assert judge(rows.assign(version=rows["version"] + 1), 3, second, SPEC).trial.look == 1


def test_labels_that_arrive_later_are_looked_at():
    rows = both(150, accuracy=0.5, labelled=1.0)
    first = judge(rows.assign(true=None), CANARY, None, SPEC)
    assert first.action == WAIT
    assert judge(rows, CANARY, first, SPEC).action == DROP


@given(
    st.integers(0, 10**6),
    st.integers(0, 300),
    st.fixed_dictionaries({"accuracy": st.floats(0, 1), "faults": st.floats(0, 1), "labelled": st.floats(0, 1)}),
    st.sampled_from([both, shadowed]),
)
def test_it_never_promotes_with_fewer_answers_than_asked(seed, count, changed, made):
    found = judge(made(count, seed, **changed), CANARY, None, SPEC)
    if found.action == PROMOTE:
        assert found.trial.rows >= SPEC.rows
        assert not any(check.worse for check in found.trial.checks)


@pytest.mark.long
@pytest.mark.parametrize("made", [both, shadowed])
def test_one_that_is_as_good_is_seldom_dropped_however_often_one_looks(made):
    """20 trials of 20 looks without any allowance: 5% may be dropped, more than 4 of 20 have a chance below 0.5%."""
    dropped = 0
    for seed in range(20):
        whole, last, upto = made(2000, seed, labelled=0.5), None, float(FIRST_LOOK)
        for look in range(1, 21):
            last = judge(whole.head(2 * round(upto)), CANARY, last, STRICT)
            assert last.trial.look == look
            upto = 1.25 * upto + 1
            if last.action == DROP:
                dropped += 1
                break
    assert dropped <= 4


def test_ranks_of_one_size_are_the_mann_whitney_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.lognormal(0, 1, 80).round(1) + 0.1, rng.lognormal(0.3, 1, 50).round(1) + 0.1
    ratio, p_value = slower(np.ones(80), ours, np.ones(50), theirs)
    known = mannwhitneyu(theirs, ours, alternative="greater", method="asymptotic", use_continuity=False).pvalue
    assert p_value == pytest.approx(known)
    assert ratio == pytest.approx(np.median(theirs) / np.median(ours))


def test_times_are_compared_within_batches_of_one_size():
    """The champion has the large batches, the canary the small ones: on the whole it looks faster and is slower."""
    rng = np.random.default_rng(0)
    sizes, theirs = np.repeat([1, 8], [20, 200]), np.repeat([1, 8], [200, 20])
    noise, other = rng.lognormal(0, 0.1, 220), rng.lognormal(0, 0.1, 220)
    ratio, p_value = slower(sizes, sizes * noise, theirs, 2 * theirs * other)
    assert np.median(2 * theirs * other) < np.median(sizes * noise)
    assert ratio == pytest.approx(2, rel=0.1)
    assert p_value < 1e-6
    assert slower(np.array([1]), np.array([1.0]), np.array([2]), np.array([9.0])) == (None, 1.0)


def copied(seed: int, batches: int, times: float) -> pd.DataFrame:
    """A shadow that had whole batches of the champion, of 1 to 32 rows of any length, while other batches of theirs
    went by: what a batch takes varies a hundred times as much as the two do.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 33, batches)
    work = (4 + 1.8 * sizes) * rng.lognormal(0, 0.8, batches)
    took = [work * rng.lognormal(0, 0.1, batches), times * work * rng.lognormal(0, 0.1, batches)]
    rows = pd.DataFrame({"at": np.arange(batches).repeat(sizes)})
    parts = [
        rows.assign(
            prediction_id=[f"1.{row}" for row in range(len(rows))],
            version=version,
            kind=kind,
            key=[str(row) for row in range(len(rows))],
            label="pos",
            fault=None,
            true=None,
            batch=f"{kind} " + rows["at"].astype(str),
            batch_rows=sizes[rows["at"]],
            seconds=seconds[rows["at"]],
        )
        for version, kind, seconds in zip((CHAMPION, CANARY), ("answer", "shadow"), took, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def latency(rows: pd.DataFrame, spec: CanarySpec = SPEC) -> canary.Check:
    found = judge(rows, CANARY, None, spec)
    return next(check for check in found.trial.checks if check.rule == "latency")


def times_of(rows: pd.DataFrame) -> tuple[float | None, float]:
    shadow = rows["kind"] == "shadow"
    same = canary._same_batches(rows[~shadow], rows[shadow])
    return slower_pairs(same["champion"].to_numpy(), same["canary"].to_numpy())


@pytest.mark.long
def test_a_shadow_as_fast_as_the_champion_is_not_judged_slower():
    """At the level of the test, without any allowance, however different the batches are among themselves."""
    p_values = [times_of(copied(seed, 30, 1.0))[1] for seed in range(200)]
    for level in (0.05, 0.2, 0.5):
        assert binomtest(sum(p <= level for p in p_values), 200, level).pvalue > 0.001
    assert not any(latency(copied(seed, 30, 1.0)).worse for seed in range(10))


def test_a_shadow_twice_as_slow_is_found():
    found = [latency(copied(seed, 12, 2.0)) for seed in range(20)]
    assert all(check.worse for check in found)
    assert times_of(copied(0, 12, 2.0))[0] == pytest.approx(2, rel=0.1)


def test_a_batch_of_which_the_shadow_had_a_part_is_not_compared():
    rows = copied(0, 20, 1.0)
    shadow = rows["kind"] == "shadow"
    assert len(canary._same_batches(rows[~shadow], rows[shadow])) == 20
    short = rows[shadow].groupby("batch").filter(lambda part: len(part) > 1)
    part = short.drop(short.groupby("batch").head(1).index)
    part["batch_rows"] -= 1
    assert len(canary._same_batches(rows[~shadow], part)) == 0
    unequal = part.assign(batch_rows=part["batch_rows"] + 1)  # as large, of other rows
    assert len(canary._same_batches(rows[~shadow], unequal)) == 0


def test_the_same_times_are_not_slower():
    ratio, p_value = slower_pairs(np.ones(5), np.ones(5))
    assert (ratio, p_value) == (1.0, 1.0)


def test_levels_of_all_looks_and_tests_add_up_to_the_rate():
    levels = [SPEC.false_alarm_rate / (look * (look + 1)) / canary._TESTS for look in range(1, 200)]
    assert 0.99 * SPEC.false_alarm_rate < 3 * sum(levels) < SPEC.false_alarm_rate


def test_texts_that_have_no_time_are_judged_by_faults_and_labels() -> None:
    rows = both(300, seed=1, labelled=1.0).assign(seconds=np.nan)
    verdict = judge(rows, CANARY, None, SPEC)
    assert verdict.action == PROMOTE
    assert "no batches of the same size to compare times by" in verdict.reasons
    assert judge(both(300, faults=0.3).assign(seconds=np.nan), CANARY, None, SPEC).action == DROP
    assert judge(both(300, labelled=1.0, accuracy=0.5).assign(seconds=np.nan), CANARY, None, SPEC).action == DROP
