from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jobs.data import preparation
from jobs.evaluation import evaluate
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.tasks.task import Output
from tests import tiny


class Always:
    """A predictor with one answer."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        return [
            Output(self.label, 0.9, {"negative": 0.1, "positive": 0.1, self.label: 0.9}, np.zeros(4, np.float32))
            for _ in texts
        ]


def test_without_feedback_there_are_old_rows_only(spec: Spec, place: Place) -> None:
    made = preparation.prepare(spec, place.storage)
    rows = evaluate.answers(Always("positive"), made, place.storage, spec.evaluation)
    cards = evaluate.scorecards(rows, made.labels, tiny.TASK.targets, spec.evaluation)
    assert list(rows["input"]) == list(made.rows(place.storage, "test")["input"])
    assert set(cards) == {"old"}
    assert cards["old"].rows == made.size("test")
    assert cards["old"].metrics["accuracy"].value == made.counts["test"]["positive"] / made.size("test")


def test_feedback_is_scored_apart_and_on_no_row_of_the_old(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    new = preparation.extend(spec, place.storage, old, pd.DataFrame(tiny.rows(60, seed=9)))
    rows = evaluate.answers(Always("negative"), new, place.storage, spec.evaluation)
    cards = evaluate.scorecards(rows, new.labels, tiny.TASK.targets, spec.evaluation)
    assert cards["old"].rows == old.size("test")
    assert cards["new"].rows == new.size("test") - old.size("test")
    assert set(rows["input"][rows["slice"] == "old"]) == set(old.rows(place.storage, "test")["input"])
    assert cards["new"].per_label["negative"].recall == 1
    assert cards["new"].per_label["positive"].recall == 0
