"""Two answers of which the first is better: JSON such as `{"chosen": "...", "rejected": "..."}`.

What a model gives is one text. Its metrics hold it to both by chrF (`text.py`): which it is nearer to, and how near it
is to the better one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jobs.inputs import texts

from . import EXACT_MATCH, Metric, Values, mean, text

NAME, CLOSED, LISTED, LEAST = "preference", False, True, 0

parts, found = text.parts, text.found

_KEYS = {"chosen", "rejected"}
_SHAPE = 'is no pair of answers, such as {"chosen": "...", "rejected": "..."}'


def read(value: object) -> str:
    """An answer is a text, or messages of which the last one is it. Raises ValueError for what is no pair."""
    if not isinstance(value, Mapping):
        cell = texts.cell(value)
        if not cell:
            return ""
        value = _parsed(cell)
    if not isinstance(value, Mapping) or set(value) != _KEYS:
        raise ValueError(_SHAPE)
    made = {name: _answer(value[name]) for name in ("chosen", "rejected")}
    if not made["chosen"] or not made["rejected"]:
        return ""
    if made["chosen"] == made["rejected"]:
        raise ValueError("has the same answer twice, of which none is better")
    return json.dumps(made)


def pair(target: str) -> tuple[str, str]:
    """The better answer and the worse one."""
    both = json.loads(target)
    return both["chosen"], both["rejected"]


def said(target: str) -> str:
    """A model's answer, or the better one of a pair."""
    both = _parsed(target)
    return str(both["chosen"]) if isinstance(both, dict) and set(both) == _KEYS else target


def fault(target: str, labels: Sequence[str]) -> str:  # noqa: ARG001 - any two texts are a pair
    """That it is no pair."""
    try:
        return "" if read(target) else _SHAPE
    except ValueError as error:
        return str(error)


def watched(targets: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """How many words the answer has."""
    return text.watched([said(target) for target in targets], labels)


def _parsed(given: str) -> object:
    try:
        return json.loads(given)
    except ValueError:  # a text that is no JSON
        return None


def _answer(value: object) -> str:
    """The text of an answer: of messages that of the last one."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) and isinstance(value[-1], Mapping):
        return texts.cell(value[-1].get("content"))
    return texts.cell(value)


def _chrf_of(true: str, predicted: str) -> float:
    metric = text.METRICS["chrf"]
    ((row,),) = metric.statistics([true], [[predicted]])
    return float(metric.value(row))


def _nearer(true: str, predicted: str) -> float:
    """1 where an answer is nearer to the better one, 1/2 where it is as near to both."""
    better, worse = (_chrf_of(answer, said(predicted)) for answer in pair(true))
    return 0.5 if better == worse else float(better > worse)


def _near(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
    return text.METRICS["chrf"].statistics(list(map(said, true)), [list(map(said, each)) for each in predicted])


METRICS = {
    "nearer_chosen": mean(_nearer),
    "chrf": Metric(_near, text.METRICS["chrf"].value),
    EXACT_MATCH: mean(lambda true, predicted: float(said(true) == said(predicted))),
}
