"""Which rows are dropped before a split, and why. Pure: a frame in, a frame and the dropped rows out.

How near duplicates are found is in `near.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from cluster.errors import DataError
from jobs.targets import Targets

from .faults import first_ten
from .near import twins


def clean(
    rows: pd.DataFrame, near_duplicates: float | None, key_of: Callable[[str], str], *, closed: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kept rows in their order, and the dropped ones with columns `reason` and `of`; `key_of` is `Inputs.key`.

    Reasons: `empty input`, `empty label`, `conflicting labels` (the same input under two labels: all of them go, unless
    targets are not `closed`: of texts more than one may be right), `duplicate` (the first stays), `near duplicate` (the
    first stays). `of` is the `row` of what stays, or 0.
    """
    rows = rows.reset_index(drop=True)
    reason, of = pd.Series("", index=rows.index), pd.Series(0, index=rows.index)
    key = rows["input"].map(key_of)
    reason[rows["label"] == ""] = "empty label"
    reason[key == ""] = "empty input"
    usable = reason == ""
    if closed:
        labels_of_text = rows[usable].groupby(key[usable])["label"].transform("nunique")
        reason[labels_of_text[labels_of_text > 1].index] = "conflicting labels"
        usable = reason == ""
    again = key[usable][key[usable].duplicated()].index
    reason[again] = "duplicate"
    of[again] = rows[usable].groupby(key[usable])["row"].transform("first")[again]
    if near_duplicates is not None:
        usable = reason == ""
        at, number = key[usable].index, rows["row"][usable].to_numpy()
        for one, twin in twins(list(key[usable]), near_duplicates).items():
            reason[at[one]], of[at[one]] = "near duplicate", number[twin]
    dropped = reason != ""
    return (
        rows[~dropped].reset_index(drop=True),
        rows[dropped].assign(reason=reason[dropped], of=of[dropped]).reset_index(drop=True),
    )


def describe(dropped: pd.DataFrame) -> list[str]:
    """One line a reason: how many rows, and the numbers of the first ten in the source."""
    return [
        f"dropped {len(mine)} {reason}: row {first_ten(map(str, mine['row']))}"
        for reason, mine in dropped.groupby("reason", sort=True)
    ]


def check_labels(rows: pd.DataFrame, known: Sequence[str] | None, source: str, targets: Targets) -> list[str]:
    """The labels, sorted or in the spec's order; none where targets are texts.

    Raises DataError on a target that has an unknown label, or where there are too few labels for the task.
    """
    given = rows[rows["label"] != ""]
    parts: Callable[[str], Sequence[str]] = targets.parts if targets.LISTED else lambda target: [target]
    found = sorted({part for target in given["label"].unique() for part in parts(target)})
    unknown = {} if known is None else {t for t in given["label"].unique() if not set(parts(t)) <= set(known)}
    if known is not None and unknown:
        bad = given[given["label"].isin(unknown)]
        at = first_ten(f"row {row} {label!r}" for row, label in zip(bad["row"], bad["label"], strict=True))
        raise DataError(
            f"labels that data.labels does not name: {at}",
            where=source,
            mend=f"data.labels is {', '.join(known)}" if targets.LISTED else "",
        )
    if len(found) < targets.LEAST:
        raise DataError(
            f"has only the label {found[0]!r}" if found else "has no labels",
            where=source,
            mend=f"the task needs at least {targets.LEAST}",
        )
    return list(known) if known is not None and targets.LEAST else found
