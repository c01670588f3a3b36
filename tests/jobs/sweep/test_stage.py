from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest

from jobs.spec import Spec
from jobs.sweep import points, stage
from jobs.sweep.record import DIVERGED, METRIC

SEARCH = {"method.rank": {"choice": [2, 4, 8, 16]}}
SPEC = Spec.model_validate(
    {"name": "x", "base_model": "m", "data": {"source": "a.csv"}, "sweep": {"epochs": 4, "search": SEARCH}}
)
POINT = {"method.rank": 4}


def reports(*losses: float, begin: int = 0) -> list[dict[str, float]]:
    """One an epoch, after `begin` of them; the loss is the best so far, as trials report it."""
    return [
        {
            "epoch": at + 1.0,
            "step": 5 * (at + 1),
            METRIC: min(losses[: at - begin + 1]),
            "validation_accuracy": 0.7,
            DIVERGED: loss in {inf, nan},
        }
        for at, loss in enumerate(losses, begin)
    ]


@pytest.mark.parametrize(
    ("losses", "error", "status", "said", "loss"),
    [
        ((0.5, 0.4, 0.3, 0.2), "", "finished", "", 0.2),
        ((0.5, 0.4), "", "stopped", "", 0.4),
        ((0.5, 0.4), "out of memory", "failed", "out of memory", None),
        ((inf,), "", "failed", DIVERGED, None),
        ((0.5, inf), "", "failed", DIVERGED, None),
        ((), "no such module", "failed", "no such module", None),
        ((), "", "failed", "ended without a report", None),
    ],
)
def test_what_came_of_a_trial_is_read_from_its_reports(losses, error, status, said, loss) -> None:
    made = stage.outcome(SPEC, POINT, reports(*losses), error)
    assert (made.status, made.error, made.validation_loss) == (status, said, loss)
    assert (made.id, made.values) == (points.name(POINT), POINT)
    assert made.steps == 5 * len(losses)


def test_a_trial_that_goes_on_is_told_as_one() -> None:
    whole = stage.outcome(SPEC, POINT, reports(0.5, 0.4, 0.45, 0.3), "")
    assert whole.losses == ((1.0, 0.5), (2.0, 0.4), (3.0, 0.4), (4.0, 0.3))
    begun = stage.outcome(SPEC, POINT, reports(0.5, 0.4), "")
    assert begun.status == "stopped"
    after = [report | {METRIC: min(report[METRIC], 0.4)} for report in reports(0.45, 0.3, begin=2)]
    assert stage.outcome(SPEC, POINT, after, "", begun) == whole
    anew = reports(0.5, 0.4, 0.45, 0.3)  # its checkpoint was not there any more
    assert stage.outcome(SPEC, POINT, anew, "", begun) == whole


def test_of_a_trial_that_fails_later_what_it_did_before_is_kept() -> None:
    begun = stage.outcome(SPEC, POINT, reports(0.5, 0.4), "")
    failed = stage.outcome(SPEC, POINT, [], "the node was lost", begun)
    assert failed == replace(
        begun, status="failed", error="the node was lost", validation_loss=None, validation_accuracy=None
    )
    diverged = stage.outcome(SPEC, POINT, reports(inf, begin=2), "", begun)
    assert (diverged.error, diverged.epochs, diverged.losses) == (DIVERGED, 3.0, begun.losses)
