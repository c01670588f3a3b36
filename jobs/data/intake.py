"""Rows as they come in, before any is judged: personal data found and masked, hand-made corrections applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jobs import tasks
from jobs.inputs import texts
from jobs.spec import DataSpec, Spec
from jobs.tasks.task import Task

from . import corrections, pii, source
from .clean import check_labels


@dataclass(frozen=True)
class Intake:
    """`rows` as `source.load` gives them; `dropped` by corrections, with `reason`; `personal`: row numbers by kind.

    `corrections` is the hash of what was corrected.
    """

    rows: pd.DataFrame
    dropped: pd.DataFrame
    labels: list[str]
    personal: Mapping[str, tuple[int, ...]]
    corrections: str | None


def read(spec: DataSpec, task: Task) -> Intake:
    """Raises DataError."""
    inputs, targets = task.inputs, task.targets
    rows = source.load(spec, task)
    found = pii.rows_with(rows["input"], spec.phone_region) if inputs.NAME == texts.NAME else {}
    personal = {kind: tuple(map(int, rows["row"].iloc[at])) for kind, at in found.items()}
    rows, dropped, fixes = masked(rows, spec), rows.iloc[:0].assign(reason="", of=0), None
    if spec.corrections is not None:
        known = list(spec.labels) if spec.labels else check_labels(rows, None, spec.source, targets)
        made = corrections.read(Path(spec.corrections))
        rows, dropped = corrections.apply(
            rows,
            made,
            lambda target: targets.fault(target, known),
            lambda a, b: _same(a, inputs.shown(b), spec.phone_region),
        )
        fixes = made.hash
    return Intake(rows, dropped, check_labels(rows, spec.labels, spec.source, targets), personal, fixes)


def masked(rows: pd.DataFrame, spec: DataSpec) -> pd.DataFrame:
    """The rows with personal data in `input` masked, when the spec wants that."""
    return rows if spec.pii == "keep" else rows.assign(input=list(map(mask(spec), rows["input"])))


def mask(spec: DataSpec) -> Callable[[str], str]:
    """What the spec does to the personal data in a text."""
    return (lambda text: text) if spec.pii == "keep" else (lambda text: _hidden(text, spec.phone_region))


def taker(spec: Spec) -> Callable[[str], str]:
    """What is made of an input that is sent to be answered; raises ValueError when it is none of the task's."""
    sent, hide = tasks.get(spec.task).inputs.sent, mask(spec.data)
    return lambda given: hide(sent(given))


def _same(one: str, other: str, region: str) -> bool:
    """Whether two texts are one row's: spreadsheets change blanks, and either of them may have been masked."""
    return one == other or _hidden(one, region).split() == _hidden(other, region).split()


def _hidden(text: str, region: str) -> str:
    """A text masked; of a conversation what each message says: in JSON a line's end looks like a letter."""
    said = texts.conversation(text)
    if said is None:
        return pii.mask(text, region)
    masked = [message | {"content": pii.mask(message["content"], region)} for message in said]
    return text if masked == said else json.dumps(masked)
