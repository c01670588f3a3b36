from __future__ import annotations

import dataclasses

import pandas as pd

from jobs.evaluation.footprint import Ratios
from jobs.spec import EvaluationSpec
from monitoring import gate, show

from .holdouts import planted

SPEC = EvaluationSpec(bootstrap=20)


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


def test_the_first_version_has_no_table() -> None:
    first = dataclasses.replace(judged(planted(9, 0, 1)), checks=())
    assert len(show.verdict(first).splitlines()) == 1
