from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.evaluation.calibration import calibration
from jobs.evaluation.metrics import METRICS
from jobs.evaluation.scorecard import Scorecard, score
from jobs.evaluation.slices import BY, gaps, slices

TRUE = ["a", "a", "a", "b", "b", "c"]
PREDICTED = ["a", "a", "b", "b", "c", "c"]


def test_the_numbers_are_those_one_counts_by_hand() -> None:
    card = score(TRUE, PREDICTED, ["a", "b", "c"])
    assert card.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))
    assert card.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert card.per_label["a"].precision == 1
    assert card.per_label["a"].recall == pytest.approx(2 / 3)
    assert card.per_label["b"].f1 == pytest.approx(0.5)
    assert [card.per_label[label].support for label in card.labels] == [3, 2, 1]
    assert card.metrics["macro_f1"].value == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=60))
def test_an_interval_covers_its_value_and_a_card_survives_json(pairs) -> None:
    card = score([t for t, _ in pairs], [p for _, p in pairs], ["a", "b"], resamples=50)
    accuracy = card.metrics["accuracy"]
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert Scorecard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_intervals_narrow_with_rows() -> None:
    few, many = (score(TRUE * n, PREDICTED * n, ["a", "b", "c"]).metrics["accuracy"] for n in (5, 100))
    assert many.high - many.low < (few.high - few.low) / 3


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        score([], [], ["a", "b"])


def test_scores_give_two_more_metrics_and_one_label_has_no_area() -> None:
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    card = score(list("aabb"), list("abbb"), ["a", "b"], shares=shares, resamples=200)
    assert card.metrics["roc_auc"].value == 1
    assert card.metrics["log_loss"].value == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.8]).mean())
    assert card.metrics["log_loss"].low < card.metrics["log_loss"].value < card.metrics["log_loss"].high
    assert set(score(["a"], ["a"], ["a", "b"], shares=shares[:1], resamples=5).metrics) == {*METRICS, "log_loss"}


def test_a_whole_card_survives_json() -> None:
    rows = pd.DataFrame({"true": ["a", "b"] * 20, "label": ["a"] * 40, f"{BY}country": ["de"] * 20 + ["fr"] * 20})
    found = slices(rows, ["a", "b"], 20)
    card = replace(
        score(list(rows["true"]), list(rows["label"]), ["a", "b"], resamples=5),
        calibration=calibration(np.full(40, 0.5), (rows["true"] == "a").to_numpy()),
        slices=found,
        gaps=gaps(found),
    )
    assert len(card.slices) == 2
    assert len(card.gaps) == 1
    assert Scorecard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
