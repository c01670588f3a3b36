from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import DataError
from jobs.data.clean import check_labels, clean, describe
from jobs.inputs import texts
from jobs.targets import label


def frame(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["input", "label"]).assign(row=range(1, len(rows) + 1))


def reasons(rows: pd.DataFrame, near: float | None = 0.8) -> dict[int, str]:
    _, dropped = clean(rows, near, texts.key)
    return dict(zip(dropped["row"], dropped["reason"], strict=True))


def test_each_dropped_row_says_why() -> None:
    long = "one two three four five six seven eight nine ten"
    rows = frame(
        ("", "a"),
        ("text", ""),
        ("Same!", "a"),
        ("same", "a"),
        ("clash", "a"),
        ("clash", "b"),
        (long, "a"),
        (f"{long} eleven", "a"),
        ("!?", "a"),
    )
    assert reasons(rows) == {
        1: "empty input",
        2: "empty label",
        4: "duplicate",
        5: "conflicting labels",
        6: "conflicting labels",
        8: "near duplicate",
        9: "empty input",
    }


def test_near_duplicates_can_be_kept() -> None:
    rows = frame(("a b c d e f g h i j", "x"), ("a b c d e f g h i j k", "x"))
    assert reasons(rows, near=None) == {}


@given(st.lists(st.tuples(st.text(max_size=12), st.sampled_from(["a", "b", ""])), min_size=1, max_size=30))
def test_every_row_is_kept_or_dropped_and_what_is_kept_is_unique(rows) -> None:
    given_rows = frame(*rows)
    kept, dropped = clean(given_rows, 0.9, texts.key)
    assert sorted([*kept["row"], *dropped["row"]]) == list(given_rows["row"])
    assert (dropped["reason"] != "").all()
    keys = [texts.key(text) for text in kept["input"]]
    assert len(keys) == len(set(keys))
    assert "" not in keys


def test_an_unknown_label_is_named_with_its_row() -> None:
    rows = frame(("x", "a"), ("y", "b"), *[("z", "c")] * 12)
    with pytest.raises(DataError) as caught:
        check_labels(rows, ["a", "b"], "data.csv", label)
    assert "row 3 'c'" in str(caught.value)
    assert "and 2 more" in str(caught.value)


@pytest.mark.parametrize(("labels", "said"), [("aa", "has only the label 'a'"), (("", ""), "has no labels")])
def test_a_classifier_needs_two_labels(labels, said) -> None:
    with pytest.raises(DataError, match=said):
        check_labels(frame(*[("x", name) for name in labels]), None, "data.csv", label)


def test_labels_keep_the_order_of_the_spec() -> None:
    rows = frame(("x", "a"), ("y", "b"))
    assert check_labels(rows, ["b", "a"], "s", label) == ["b", "a"]
    assert check_labels(rows, None, "s", label) == ["a", "b"]


def test_a_duplicate_names_the_row_that_stays() -> None:
    long = "one two three four five six seven eight nine ten"
    _, dropped = clean(
        frame(("x", "a"), (long, "a"), ("X!", "a"), (f"{long} eleven", "a"), ("", "b"), ("x", "a")), 0.8, texts.key
    )
    assert dict(zip(dropped["row"], dropped["of"], strict=True)) == {3: 1, 4: 2, 5: 0, 6: 1}


def test_what_was_dropped_is_said_with_the_first_ten_rows() -> None:
    _, dropped = clean(frame(*[("", "a")] * 13, ("x", "a"), ("x", "a")), None, texts.key)
    assert describe(dropped) == [
        "dropped 1 duplicate: row 15",
        "dropped 13 empty input: row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more",
    ]
