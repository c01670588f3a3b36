from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import DataError
from jobs.spec import SplitSpec
from jobs.split import SPLITS, assign


def frame(groups: list[int], labels: list[str], times: list[object] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": [f"t{i}" for i in range(len(labels))],
            "label": labels,
            "group": [f"g{g}" if g else "" for g in groups],
            "time": times if times is not None else [None] * len(labels),
            "row": range(1, len(labels) + 1),
        }
    )


rows = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 20)), min_size=3, max_size=120)


def shares(by: str) -> st.SearchStrategy[SplitSpec]:
    def made(parts: tuple[int, int, int]) -> SplitSpec:
        train, validation, test = (part / sum(parts) for part in parts)
        return SplitSpec(by=by, train=train, validation=validation, test=test)

    return st.tuples(*[st.integers(1, 50)] * 3).map(made)


def built(drawn) -> pd.DataFrame:
    return frame([d[0] for d in drawn], [d[1] for d in drawn], [d[2] for d in drawn])


@given(rows, st.sampled_from(["stratified", "group", "time"]).flatmap(shares), st.integers(0, 5))
def test_every_row_has_one_split_and_training_knows_every_label(drawn, spec, seed) -> None:
    given_rows = built(drawn)
    try:
        split = assign(given_rows, spec, seed)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert set(split) == set(SPLITS)
    assert set(given_rows["label"][split == "train"]) == set(given_rows["label"])
    assert split.equals(assign(given_rows, spec, seed))


@given(rows, st.integers(0, 5))
def test_a_group_is_never_divided(drawn, seed) -> None:
    given_rows = built(drawn)
    try:
        split = assign(given_rows, SplitSpec(by="group"), seed)
    except DataError:
        return
    named = given_rows["group"] != ""
    assert split[named].groupby(given_rows["group"][named]).nunique().le(1).all()


@given(rows)
def test_time_never_runs_backwards(drawn) -> None:
    given_rows = built(drawn)
    try:
        split = assign(given_rows, SplitSpec(by="time"), 0)
    except DataError:
        return
    times = {name: given_rows["time"][split == name] for name in SPLITS}
    assert times["train"].max() < times["validation"].min()
    assert times["validation"].max() < times["test"].min()


def test_shares_are_kept_and_labels_with_them() -> None:
    given_rows = frame([0] * 1000, ["a"] * 800 + ["b"] * 200)
    split = assign(given_rows, SplitSpec(), 0)
    assert split.value_counts().to_dict() == {"train": 700, "validation": 150, "test": 150}
    for name in SPLITS:
        assert (given_rows["label"][split == name] == "b").mean() == pytest.approx(0.2, abs=0.005)


@given(rows, shares("stratified"))
def test_a_stratified_split_has_the_sizes_that_were_asked_for(drawn, spec) -> None:
    given_rows = built(drawn)
    try:
        split = assign(given_rows, spec, 0)
    except DataError:
        return
    for name, share in (("train", spec.train), ("validation", spec.validation), ("test", spec.test)):
        assert abs((split == name).sum() - share * len(given_rows)) <= 1


def test_dates_are_understood_and_what_is_none_is_named() -> None:
    days = [f"2026-01-{d:02d}" for d in range(1, 21)]
    assert assign(frame([0] * 20, list("ab") * 10, days), SplitSpec(by="time"), 0).iloc[-1] == "test"
    with pytest.raises(DataError, match="row 20: 'soon' is neither a date nor a number"):
        assign(frame([0] * 20, list("ab") * 10, [*days[:-1], "soon"]), SplitSpec(by="time"), 0)


@pytest.mark.parametrize(
    ("labels", "said"),
    [("aaab", "label 'b' has 1 row"), ("ab" * 2, "a stratified split needs 3 of each"), ("aaa", "too few to split")],
)
def test_too_little_is_said(labels, said) -> None:
    with pytest.raises(DataError, match=said):
        assign(frame([0] * len(labels), list(labels)), SplitSpec(), 0)
