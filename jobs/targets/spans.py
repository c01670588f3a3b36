"""Marked spans of a text: JSON such as `[{"start": 0, "end": 5, "label": "PER"}]`, sorted, `[]` for none.

`start` is the first character, `end` one past the last. Spans do not overlap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from jobs.inputs import texts

from . import EXACT_MATCH, Found, exact_match, f1

NAME, CLOSED, LISTED, LEAST = "spans", False, True, 1

_SHAPE = 'is no list of spans, such as [{"start": 0, "end": 5, "label": "PER"}]'


@dataclass(frozen=True, order=True, config=ConfigDict(extra="forbid"))
class Span:
    start: int
    end: int
    label: str


_SPANS = TypeAdapter(list[Span])


def joined(spans: Sequence[Span]) -> str:
    """Spans as a target."""
    return json.dumps([asdict(span) for span in sorted(spans)])


def read(value: object) -> str:
    """Raises ValueError for what is no list of spans, or for spans that overlap."""
    if isinstance(value, list | tuple | np.ndarray):
        return joined(_spans(list(value)))
    text = texts.cell(value)
    return joined(spans(text)) if text else ""


def spans(target: str) -> list[Span]:
    """In the order of the text. Raises ValueError."""
    try:
        given = json.loads(target)
    except ValueError:
        raise ValueError(_SHAPE) from None
    return _spans(given)


def parts(target: str) -> list[str]:
    """The labels of the spans."""
    return [span.label for span in spans(target)]


def found(target: str) -> frozenset[Found]:
    """The spans, each with its place."""
    return frozenset((span.label, (span.start, span.end)) for span in spans(target))


def fault(target: str, labels: Sequence[str]) -> str:
    """That it is no list of spans, or names a label that the model does not know."""
    try:
        given = spans(target)
    except ValueError as error:
        return str(error)
    unknown = [span.label for span in given if span.label not in labels]
    return f"{unknown[0][:80]!r} is no label; labels are {', '.join(labels)}" if unknown else ""


def watched(targets: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """How many spans of each label there are in a text."""
    given = [parts(target) for target in targets]
    return pd.DataFrame({f"spans of {label}": [float(names.count(label)) for names in given] for label in labels})


def _spans(given: object) -> list[Span]:
    try:
        made = sorted(_SPANS.validate_python(given))
    except ValidationError:
        raise ValueError(_SHAPE) from None
    for span in made:
        if not 0 <= span.start < span.end or not span.label:
            raise ValueError(f"has the span {span.start} to {span.end} {span.label!r}, which marks nothing")
    for span, following in pairwise(made):
        if following.start < span.end:
            raise ValueError(f"has spans that overlap at character {following.start}")
    return made


# Spans of the same place and label, as CoNLL-2003 scores them.
METRICS = {"f1": f1(found), EXACT_MATCH: exact_match}
