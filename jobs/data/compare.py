"""What changed between two dataset versions. Pure: frames in, a Difference out.

Two rows are the same when they are the same to a person (`Inputs.key`), which within a version is unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from jobs.inputs import Inputs
from jobs.tasks.task import Task

QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Change:
    """One row: its input and, before and after, its label and split; "" on the side where it is not."""

    input: str
    label: tuple[str, str]
    split: tuple[str, str]


@dataclass(frozen=True)
class Shape:
    """`labels` are rows by label, `sizes` quantiles of `unit` an input (QUANTILES and `mean`)."""

    rows: int
    labels: Mapping[str, int]
    unit: str
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """Changed rows by kind. A row may be both relabelled and moved, which is to be in another split."""

    same: int
    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    relabelled: tuple[Change, ...]
    moved: tuple[Change, ...]
    before: Shape
    after: Shape


def compare(before: pd.DataFrame, after: pd.DataFrame, task: Task) -> Difference:
    """`before` and `after` are all rows of a version with `input, label, split`."""
    inputs = task.inputs
    both = (
        _keyed(before, inputs).join(_keyed(after, inputs), how="outer", lsuffix="_before", rsuffix="_after").fillna("")
    )
    here, there = both["split_before"] != "", both["split_after"] != ""
    relabelled = here & there & (both["label_before"] != both["label_after"])
    moved = here & there & (both["split_before"] != both["split_after"])
    return Difference(
        same=int((here & there & ~relabelled & ~moved).sum()),
        added=_changes(both[~here]),
        removed=_changes(both[~there]),
        relabelled=_changes(both[relabelled]),
        moved=_changes(both[moved]),
        before=shape(before, task),
        after=shape(after, task),
    )


def shape(rows: pd.DataFrame, task: Task) -> Shape:
    """Label counts and input sizes of rows with `input, label`."""
    inputs, given = task.inputs, Counter(part for target in rows["label"] for part in task.targets.parts(target))
    sizes = rows["input"].map(inputs.size)
    return Shape(
        rows=len(rows),
        unit=f"{inputs.UNIT} a {inputs.NAME}",
        labels=dict(sorted(given.items())),
        sizes={"mean": float(sizes.mean())} | {name: float(sizes.quantile(q)) for name, q in QUANTILES.items()},
    )


def _keyed(rows: pd.DataFrame, inputs: Inputs) -> pd.DataFrame:
    shown = rows[["input", "label", "split"]].assign(input=rows["input"].map(inputs.shown))
    return shown.set_index(rows["input"].map(inputs.key).rename("key"))


def _changes(rows: pd.DataFrame) -> tuple[Change, ...]:
    """In the order of their keys."""
    pairs = {
        name: zip(rows[f"{name}_before"], rows[f"{name}_after"], strict=True) for name in ("input", "label", "split")
    }
    return tuple(
        Change(before or after, label, split)
        for (before, after), label, split in zip(pairs["input"], pairs["label"], pairs["split"], strict=True)
    )
