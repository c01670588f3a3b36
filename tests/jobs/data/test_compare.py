from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.compare import Change, compare
from jobs.data.split import SPLITS
from tests import tiny

rows = st.dictionaries(
    st.integers(0, 15), st.tuples(st.sampled_from("ab"), st.sampled_from(SPLITS)), min_size=1, max_size=12
)


def frame(drawn) -> pd.DataFrame:
    return pd.DataFrame([(f"text {key}", label, split) for key, (label, split) in drawn.items()], columns=COLUMNS)


COLUMNS = ["input", "label", "split"]


@settings(max_examples=30)
@given(rows, rows)
def test_every_row_is_the_same_or_changed_in_a_way_that_is_named(one, two) -> None:
    found = compare(frame(one), frame(two), tiny.TASK)
    assert {c.input for c in found.added} == {f"text {key}" for key in two.keys() - one.keys()}
    assert {c.input for c in found.removed} == {f"text {key}" for key in one.keys() - two.keys()}
    both = one.keys() & two.keys()
    assert {c.input for c in found.relabelled} == {f"text {key}" for key in both if one[key][0] != two[key][0]}
    assert {c.input for c in found.moved} == {f"text {key}" for key in both if one[key][1] != two[key][1]}
    assert found.same == sum(one[key] == two[key] for key in both)
    assert (found.before.rows, found.after.rows) == (len(one), len(two))


def test_a_change_says_what_was_and_what_is() -> None:
    before = pd.DataFrame([("A text!", "a", "train"), ("gone", "a", "test")], columns=COLUMNS)
    after = pd.DataFrame([("a text", "b", "test"), ("come now", "b", "test")], columns=COLUMNS)
    found = compare(before, after, tiny.TASK)
    assert found.relabelled == found.moved == (Change("A text!", ("a", "b"), ("train", "test")),)
    assert found.added == (Change("come now", ("", "b"), ("", "test")),)
    assert found.removed == (Change("gone", ("a", ""), ("test", "")),)
    assert (found.before.labels, found.after.labels) == ({"a": 2}, {"b": 2})
    assert found.before.sizes["mean"] == pytest.approx(1.5)
    assert found.after.sizes["max"] == 2
