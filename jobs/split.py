"""Which row goes to train, validation and test. Pure, and the same for the same rows and seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from cluster.errors import DataError

from .spec import SplitBy, SplitSpec

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


def assign(rows: pd.DataFrame, spec: SplitSpec, seed: int) -> pd.Series[str]:
    """A split name for each row. Groups are never divided; time never runs backwards. Raises DataError."""
    match spec.by:
        case SplitBy.stratified:
            split = _stratified(rows, spec, seed)
        case SplitBy.group:
            split = _grouped(rows, spec, seed)
        case SplitBy.time:
            split = _timed(rows, spec)
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
    if not 0 < first < len(labels):
        raise DataError(f"{len(labels)} rows are too few to split by label", mend="more rows or other shares")
    counts = labels.value_counts()
    enough = counts.min() > 1 and min(first, len(labels) - first) >= len(counts)
    one, other = train_test_split(
        labels.index, train_size=first, stratify=labels if enough else None, random_state=seed
    )
    return one, other


def _grouped(rows: pd.DataFrame, spec: SplitSpec, seed: int) -> pd.Series[str]:
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


def _timed(rows: pd.DataFrame, spec: SplitSpec) -> pd.Series[str]:
    times = _moments(rows)
    order = times.sort_values(kind="stable")
    cuts = [
        order.iloc[min(len(rows) - 1, math.floor(len(rows) * share))]
        for share in (spec.train, spec.train + spec.validation)
    ]
    # By value, not by position: rows of one moment stay together.
    split = np.select([times < cuts[0], times < cuts[1]], [TRAIN, VALIDATION], TEST)
    return pd.Series(split, index=rows.index)


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
