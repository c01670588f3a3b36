"""Which row goes to train, validation and test. Pure, and the same for the same rows and seed.

Whatever the split is by, rows of one group stay on one side and time never runs backwards. Texts that are near to
each other are `clean.py`'s: it keeps one of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from cluster.errors import DataError
from jobs.spec import SplitBy, SplitSpec

from .faults import first_ten

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

AFTER_FOLD = "after the fold's test rows"
EARLIER_GROUP = "its group is in an earlier split"

_DRAWS = 10  # of groups, of which the one with the evenest labels is taken


def assign(rows: pd.DataFrame, spec: SplitSpec, seed: int, *, closed: bool = True) -> pd.Series[str]:
    """A split name for each row, or why it takes no part: AFTER_FOLD or EARLIER_GROUP. Raises DataError.

    `rows` has `label, group, time, row` and, for a split by column, `split`. Where targets are not `closed`, labels of
    a known set, rows are drawn without a look at them.
    """
    if not closed:
        rows = rows.assign(label="")
    match spec.by:
        case SplitBy.stratified if (rows["group"] == "").all():
            split = _stratified(rows, spec, seed)
        case SplitBy.stratified:
            split = _evenest(rows, spec, seed)
        case SplitBy.group:
            split = _grouped(rows, spec, seed)
        case SplitBy.time | SplitBy.rolling:
            split = _groups_once(rows, _timed(rows, spec))
        case SplitBy.column:
            split = _given(rows, spec)
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise DataError(f"{len(rows)} rows leave nothing for {', '.join(empty)}", mend="more rows or other shares")
    missing = sorted(set(rows["label"]) - set(rows["label"][split == TRAIN]))
    if missing:
        raise DataError(
            f"no training row has the label {', '.join(map(repr, missing))}", mend="more rows of it, or another split"
        )
    return split


def _stratified(rows: pd.DataFrame, spec: SplitSpec, seed: int) -> pd.Series[str]:
    counts = rows["label"].value_counts()
    rare = counts[counts < len(SPLITS)]
    if len(rare):
        raise DataError(
            f"label {rare.index[0]!r} has {rare.iloc[0]} row(s); a stratified split needs {len(SPLITS)} of each"
        )
    train, rest = divide(rows["label"], round(len(rows) * spec.train), seed)
    left = rows["label"][rest]
    validation, test = divide(left, round(len(left) * spec.validation / (spec.validation + spec.test)), seed)
    return _named(rows, train, validation, test)


def divide(labels: pd.Series[str], first: int, seed: int) -> tuple[pd.Index[Any], pd.Index[Any]]:
    """`first` of the rows and the others, drawn by label where every label has enough rows for that, else by chance.

    Raises DataError when a side would be empty.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < first < len(labels):
        raise DataError(f"{len(labels)} rows are too few to split by label", mend="more rows or other shares")
    counts = labels.value_counts()
    enough = counts.min() > 1 and min(first, len(labels) - first) >= len(counts)
    one, other = train_test_split(
        labels.index, train_size=first, stratify=labels if enough else None, random_state=seed
    )
    return one, other


def _grouped(rows: pd.DataFrame, spec: SplitSpec, seed: int) -> pd.Series[str]:
    from sklearn.model_selection import GroupShuffleSplit

    groups = rows["group"].where(rows["group"] != "", "row " + rows["row"].astype(str))
    if groups.nunique() < len(SPLITS):
        raise DataError(f"has {groups.nunique()} group(s); a split by group needs at least {len(SPLITS)}")
    first = GroupShuffleSplit(1, train_size=spec.train, random_state=seed)
    second = GroupShuffleSplit(1, train_size=spec.validation / (spec.validation + spec.test), random_state=seed)
    try:
        train, rest = next(first.split(rows, groups=groups))
        validation, test = next(second.split(rest, groups=groups.iloc[rest]))
    except ValueError:  # scikit-learn's word for a side that would be empty
        raise DataError(f"{groups.nunique()} groups are too few to split", mend="more groups or other shares") from None
    return _named(rows, rows.index[train], rows.index[rest[validation]], rows.index[rest[test]])


def _evenest(rows: pd.DataFrame, spec: SplitSpec, seed: int) -> pd.Series[str]:
    """Of several splits by group the one in which sizes and labels are nearest to what was asked for."""
    shares = rows["label"].value_counts(normalize=True)
    wanted = pd.concat({name: shares * getattr(spec, name) for name in SPLITS})

    def distance(split: pd.Series[str]) -> float:
        cells = rows["label"].groupby(split).value_counts() / len(rows)
        return float(cells.reindex(wanted.index, fill_value=0).sub(wanted).abs().sum())

    return min((_grouped(rows, spec, seed + draw) for draw in range(_DRAWS)), key=distance)


def _timed(rows: pd.DataFrame, spec: SplitSpec) -> pd.Series[str]:
    times = _moments(rows)
    order = times.sort_values(kind="stable")
    # By value, not by position: rows of one moment stay together.
    ends = [
        order.iloc[math.floor(len(rows) * share)] if math.floor(len(rows) * share) < len(rows) else math.inf
        for share in _ends(spec)
    ]
    split = np.select([times < end for end in ends], SPLITS, AFTER_FOLD)
    return pd.Series(split, index=rows.index)


def _ends(spec: SplitSpec) -> tuple[float, float, float]:
    """Where train, validation and test end, as shares of the rows in the order of time."""
    if spec.by is SplitBy.time:
        return spec.train, spec.train + spec.validation, 1
    fold, blocks = spec.chosen_fold, spec.folds + 2
    return fold / blocks, (fold + 1) / blocks, (fold + 2) / blocks


def _groups_once(rows: pd.DataFrame, split: pd.Series[str]) -> pd.Series[str]:
    """A group stays where it is met first; its later rows would tell the model's memory from its skill no more."""
    place = split.map({name: at for at, name in enumerate((*SPLITS, AFTER_FOLD))})
    first = place.groupby(rows["group"]).transform("min")
    return split.mask((rows["group"] != "") & (place > first) & (split != AFTER_FOLD), EARLIER_GROUP)


def _given(rows: pd.DataFrame, spec: SplitSpec) -> pd.Series[str]:
    where = f"data.split.column {spec.column}"
    bad = rows[~rows["split"].isin(SPLITS)]
    if len(bad):
        faults = [f"row {row} {value!r}" for row, value in zip(bad["row"], bad["split"], strict=True)]
        raise DataError(f"is none of {', '.join(SPLITS)}: {first_ten(faults)}", where=where)
    sides = rows[rows["group"] != ""].groupby("group")["split"].unique()
    divided = sides[sides.map(len) > 1]
    if len(divided):
        faults = [f"{group!r} is in {' and '.join(names)}" for group, names in divided.items()]
        raise DataError(
            f"divides groups: {first_ten(faults)}",
            where=where,
            mend="put each group on one side or leave out data.group",
        )
    return rows["split"]


def _moments(rows: pd.DataFrame) -> pd.Series[float]:
    numbers = pd.to_numeric(rows["time"], errors="coerce")
    if numbers.notna().all():
        return numbers.astype(float)
    dates = pd.to_datetime(rows["time"], errors="coerce", utc=True, format="mixed")
    if dates.isna().any():
        bad = rows[dates.isna()].iloc[0]
        raise DataError(f"row {bad['row']}: {bad['time']!r} is neither a date nor a number", where="data.time")
    return dates.astype("int64").astype(float)


def _named(rows: pd.DataFrame, *parts: pd.Index[Any]) -> pd.Series[str]:
    split = pd.Series("", index=rows.index)
    for name, part in zip(SPLITS, parts, strict=True):
        split.loc[part] = name
    return split
