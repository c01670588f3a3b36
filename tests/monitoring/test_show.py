from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import pandas as pd
import pytest

from cluster.store.lease import Term
from cluster.store.registry import ModelVersion
from jobs.evaluation.footprint import Ratios
from jobs.spec import EvaluationSpec, MonitoringSpec
from monitoring import policy, show
from monitoring.budget import Cost
from monitoring.drift.detect import DriftResult
from monitoring.judges import gate
from serve.versions.certificate import Certificate, Measured

from .fakes import BEGAN, drifted, result
from .holdouts import planted

SPEC = EvaluationSpec(bootstrap=20)
SPEC_OF_LOOP = MonitoringSpec(consecutive=1)


def judged(*rows: pd.DataFrame) -> gate.Verdict:
    return gate.judge(pd.concat(rows, ignore_index=True), Ratios(1.1, 1.0, 1.0), SPEC)


def test_a_verdict_shows_the_failed_checks_first_and_sums_up_slices_that_did_no_harm() -> None:
    fine = [planted(40, 20, 2, country=name) for name in "abcdefg"]
    made = judged(planted(60, 2, 30, 8, country="xx"), *fine, planted(4, 0, 1, country="li"))
    lines = show.verdict(made).splitlines()
    assert lines[0].startswith("gate: refused: accuracy ")
    rows = [line.split() for line in lines]
    (failed,) = (row for row in rows if "FAILED" in row)
    assert failed[:-1] == ["slice", "FAILED", "old,", "country", "xx", "100", "0.900", "0.620", "-28.0"]
    assert float(failed[-1]) < 1e-4
    assert ["latency", "passed", "model", "1.10", "times"] in rows
    assert lines[-1] == "3 more slices lost less"
    assert next(i for i, row in enumerate(rows) if "FAILED" in row) < min(
        i for i, row in enumerate(rows) if "passed" in row
    )


def test_a_slice_that_was_too_small_says_so() -> None:
    rows = [line.split() for line in show.verdict(judged(planted(4, 0, 1, country="li"))).splitlines()]
    assert ["slice", "not", "judged", "old,", "country", "li", "5", "1.000", "0.800", "-20.0"] in rows


def test_a_decision_that_waits_for_labels_names_the_command_that_chooses_rows() -> None:
    window = drifted(number=2)
    for waiting, named in ((0, True), (SPEC_OF_LOOP.min_labels, False)):
        made = policy.decide(
            window,
            [],
            window.end,
            SPEC_OF_LOOP,
            labels_waiting=waiting,
            champion_age=timedelta(days=1),
            running=False,
            cost=Cost(None, 0.0),
            regression=None,
        )
        assert ("`rehone label SPEC --out FILE`" in show.decision(made)) is named


def test_the_first_version_has_no_table() -> None:
    first = dataclasses.replace(judged(planted(9, 0, 1)), checks=())
    assert len(show.verdict(first).splitlines()) == 1


STATE = {
    "model": "moods",
    "serving": None,
    "watching": None,
    "versions": [],
    "trial": None,
    "paused": None,
    "awaits": None,
    "decisions": [],
    "windows": [],
    "jobs": [],
    "unreachable": None,
}


NOW = {"now": {"accuracy": None, "labelled": 0}}


def test_a_window_is_told_with_the_labels_that_came_later() -> None:
    judged = result().to_dict()
    assert "no labels, estimated 0.880 (was 0.890)" in show.status({**STATE, "windows": [NOW | judged]})
    late = {"now": {"accuracy": 0.7, "labelled": 120}}
    assert "0.700 on 120, estimated 0.880 (was 0.890)" in show.status({**STATE, "windows": [late | judged]})


def test_the_state_says_who_watches_and_what_is_on_trial() -> None:
    assert "moods: not served; not watched" in show.status(STATE)
    trial = {"version": 2, "champion": 1, "began": BEGAN, "reasons": []}
    text = show.status({**STATE, "watching": Term(3, "vm/12", BEGAN), "trial": trial})
    assert "watched by vm/12" in text
    assert "version 2 is on trial since 2026-03-01 23:50:00 UTC: not looked at yet" in text
    waits = {"version": 2, "why": "monitoring.approval wants a person's word"}
    assert "version 2 passed and waits: monitoring.approval wants" in show.status({**STATE, "awaits": waits})
    assert "half as fast" in show.status({**STATE, "trial": {**trial, "reasons": ["half as fast"]}})


def test_the_state_says_how_a_version_with_an_alias_was_certified() -> None:
    engines = (
        Measured("torch", 0.04, 0.0),
        Measured("onnx-int8", 0.01, 0.02, 0.80, 0.91, 0.88, fault="costs accuracy"),
    )
    made = Certificate(3, "torch", 8, 1e-7, 1e-3, "http://127.0.0.1:8000", "2026-03-01 12:00:00 UTC", engines)
    tags = {"parity": json.dumps(made.to_dict())}
    champion = ModelVersion("moods", 3, "run", "file:///3", tags, ("champion",), 1e9)
    told = show.status({**STATE, "versions": [champion]})
    assert "version 3, parity: torch answered 8 golden inputs at most 1e-07 from the trainer (0.001 allowed)" in told
    assert "asked of a live replica at http://127.0.0.1:8000; torch 40.0 ms; onnx-int8 10.0 ms, accuracy 0.800" in told
    assert "where the trainer has 0.910: costs accuracy" in told
    old = dataclasses.replace(champion, aliases=())
    assert "parity" not in show.status({**STATE, "versions": [old]})


@pytest.mark.parametrize(("found", "told"), [(drifted(), True), (result(), False)])
def test_a_decision_ends_in_where_to_look_when_something_drifted(found: DriftResult, told: bool) -> None:
    made = policy.decide(
        found,
        [],
        BEGAN,
        MonitoringSpec(),
        labels_waiting=500,
        champion_age=timedelta(days=1),
        running=False,
        cost=Cost(None, 0.0),
        regression=None,
    )
    assert made.page == found.page
    assert show.decision(made).endswith("; what drifted: drift/moods/1-1-summary.html") == told
    state = {**STATE, "windows": []}
    assert (found.page in show.status({**state, "windows": [NOW | found.to_dict()]})) == told
