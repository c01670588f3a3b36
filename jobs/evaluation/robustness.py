"""What a model makes of inputs that are the same to a person: those that `Inputs.CHANGES` has changed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from jobs.inputs import Change
from jobs.tasks.task import Output


class Answers(Protocol):
    """What of a predictor is needed here."""

    def __call__(self, inputs: Sequence[str], /) -> list[Output]: ...


@dataclass(frozen=True)
class Robustness:
    """One kind of change on a sample of the test rows.

    `touched`: rows that it changes at all. `changed`: share of the rows whose predicted label it changes.
    """

    change: str
    rows: int
    touched: int
    accuracy_before: float
    accuracy: float
    changed: float


def measure(
    answer: Answers, rows: pd.DataFrame, changes: Mapping[str, Change], most: int, seed: int = 0
) -> tuple[Robustness, ...]:
    """Each change on at most `most` of the answered rows (`input, true, label`); none when `most` is 0."""
    if not most:
        return ()
    sample = rows if len(rows) <= most else rows.sample(most, random_state=seed)
    return tuple(_changed(name, change, answer, sample, seed) for name, change in changes.items())


def _changed(name: str, change: Change, answer: Answers, rows: pd.DataFrame, seed: int) -> Robustness:
    draw = random.Random(f"{seed} {name}")  # noqa: S311 - a sample, not a secret
    inputs = [change(given, draw) for given in rows["input"]]
    labels = [output.label for output in answer(inputs)]
    return Robustness(
        change=name,
        rows=len(rows),
        touched=int((rows["input"] != inputs).sum()),
        accuracy_before=float((rows["true"] == rows["label"]).mean()),
        accuracy=float((rows["true"] == labels).mean()),
        changed=float((rows["label"] != labels).mean()),
    )
