from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scorecard import Scorecard, score

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


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=60))
def test_it_agrees_with_scikit_learn(pairs) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    true, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    card = score(true, predicted, ["a", "b", "c"], resamples=2)
    assert card.metrics["accuracy"].value == pytest.approx(accuracy_score(true, predicted))
    assert card.metrics["macro_f1"].value == pytest.approx(
        f1_score(true, predicted, average="macro", zero_division=0.0)
    )
