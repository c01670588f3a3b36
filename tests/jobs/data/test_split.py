from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import DataError
from jobs.data.split import AFTER_FOLD, EARLIER_GROUP, SPLITS, assign
from jobs.spec import DataSpec, SplitBy, SplitSpec


def frame(groups: list[int], labels: list[str], times: list[object] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "input": [f"t{i}" for i in range(len(labels))],
            "label": labels,
            "group": [f"g{g}" if g else "" for g in groups],
            "time": times if times is not None else [None] * len(labels),
            "row": range(1, len(labels) + 1),
        }
    )


rows = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 20), st.sampled_from(SPLITS)),
    min_size=3,
    max_size=120,
)


def shares(by: str) -> st.SearchStrategy[SplitSpec]:
    def made(parts: tuple[int, int, int], folds: int, fold: int) -> SplitSpec:
        train, validation, test = (part / sum(parts) for part in parts)
        values = {"train": train, "validation": validation, "test": test, "folds": folds, "fold": min(folds, fold)}
        return SplitSpec(by=by, column="side" if by == "column" else None, **values)

    return st.builds(made, st.tuples(*[st.integers(1, 50)] * 3), st.integers(1, 5), st.integers(1, 5))


def built(drawn, *, grouped: bool = True) -> pd.DataFrame:
    made = frame([d[0] if grouped else 0 for d in drawn], [d[1] for d in drawn], [d[2] for d in drawn])
    return made.assign(split=[d[3] for d in drawn])


@settings(max_examples=60)
@given(rows, st.sampled_from(list(SplitBy)).flatmap(shares), st.integers(0, 5))
def test_no_split_leaks(drawn, spec, seed) -> None:
    given_rows = built(drawn)
    try:
        split = assign(given_rows, spec, seed)
    except DataError as error:
        assert "\n" not in str(error)
        return
    ordered = spec.by in {"time", "rolling"}
    assert set(split) - set(SPLITS) <= ({AFTER_FOLD, EARLIER_GROUP} if ordered else set())
    assert set(given_rows["label"][split == "train"]) == set(given_rows["label"])
    assert split.equals(assign(given_rows, spec, seed))
    named = (given_rows["group"] != "") & split.isin(SPLITS)
    assert split[named].groupby(given_rows["group"][named]).nunique().le(1).all()
    if ordered:
        times = {name: given_rows["time"][split == name] for name in [*SPLITS, AFTER_FOLD]}
        assert times["train"].max() < times["validation"].min()
        assert times["validation"].max() < times["test"].min()
        assert times[AFTER_FOLD].empty or times["test"].max() < times[AFTER_FOLD].min()


@given(rows, st.integers(2, 4), st.integers(1, 3))
def test_a_later_fold_trains_on_what_the_one_before_it_judged_with(drawn, folds, fold) -> None:
    given_rows = built(drawn, grouped=False)
    try:
        one, two = (
            assign(given_rows, SplitSpec(by="rolling", folds=folds, fold=min(folds - 1, fold) + more), 0)
            for more in (0, 1)
        )
    except DataError:
        return
    assert (two == "train").equals(one.isin(["train", "validation"]))
    assert (two == "validation").equals(one == "test")


def test_rolling_cuts_time_into_equal_blocks() -> None:
    given_rows = frame([0] * 50, list("ab") * 25, list(range(50)))
    sizes = [
        assign(given_rows, SplitSpec(by="rolling", folds=3, fold=fold), 0).value_counts().to_dict()
        for fold in (1, 2, None)
    ]
    assert sizes == [
        {"train": 10, "validation": 10, "test": 10, AFTER_FOLD: 20},
        {"train": 20, "validation": 10, "test": 10, AFTER_FOLD: 10},
        {"train": 30, "validation": 10, "test": 10},
    ]


def test_a_group_that_goes_on_is_kept_where_it_began() -> None:
    given_rows = frame([1, 2, 0, 0, 3, 1, 0, 4, 3, 0], list("ababababab"), list(range(10)))
    split = assign(given_rows, SplitSpec(by="time", train=0.5, validation=0.2, test=0.3), 0)
    assert list(split) == [*["train"] * 5, EARLIER_GROUP, "validation", "test", EARLIER_GROUP, "test"]


def test_labels_are_even_as_far_as_groups_allow() -> None:
    groups = [1 + i // 10 for i in range(400)]
    labels = ["a" if group % 2 else "b" for group in groups]
    split = assign(frame(groups, labels), SplitSpec(), 0)
    for name, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        part = pd.Series(labels)[split == name]
        assert len(part) == pytest.approx(400 * share, abs=10)
        assert (part == "a").mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("groups", "sides", "said"),
    [
        ([0] * 13, ["train", *["dev"] * 12], "row 2 'dev', .* and 2 more"),
        ([1] * 3, SPLITS, "divides groups: 'g1' is in train and validation and test"),
        ([0] * 3, ["train", "train", "test"], "leave nothing for validation"),
    ],
)
def test_a_column_that_cannot_be_followed_is_said(groups, sides, said) -> None:
    given_rows = frame(groups, ["a"] * len(groups)).assign(split=sides)
    with pytest.raises(DataError, match=said):
        assign(given_rows, SplitSpec(by="column", column="side"), 0)


def test_shares_are_kept_and_labels_with_them() -> None:
    given_rows = frame([0] * 1000, ["a"] * 800 + ["b"] * 200)
    split = assign(given_rows, SplitSpec(), 0)
    assert split.value_counts().to_dict() == {"train": 700, "validation": 150, "test": 150}
    for name in SPLITS:
        assert (given_rows["label"][split == name] == "b").mean() == pytest.approx(0.2, abs=0.005)


@given(rows, shares("stratified"))
def test_a_stratified_split_has_the_sizes_that_were_asked_for(drawn, spec) -> None:
    given_rows = built(drawn, grouped=False)
    try:
        split = assign(given_rows, spec, 0)
    except DataError:
        return
    for name, share in (("train", spec.train), ("validation", spec.validation), ("test", spec.test)):
        assert abs((split == name).sum() - share * len(given_rows)) <= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"by": "rolling", "folds": 3, "fold": 4}, "fold 4 of 3 folds"),
        ({"by": "column"}, "by: column and a column go together"),
        ({"by": "time", "column": "side"}, "by: column and a column go together"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_with_the_spec(values, said) -> None:
    with pytest.raises(ValueError, match=said):
        SplitSpec(**values)


def test_rolling_needs_a_time() -> None:
    with pytest.raises(ValueError, match=r"split\.by: rolling needs data\.time"):
        DataSpec(source="a.csv", split=SplitSpec(by="rolling"))


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
