"""One of many known texts: what belongs to the input. The data's own texts are those that can be found.

How often the right one is the nearest is its metric; how far down it is otherwise is in the Scorecard (`ranks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from . import Found, exact_match, text

NAME, CLOSED, LISTED, LEAST = "passage", False, False, 2

AT = 10
"""Texts that an answer tells, the nearest first."""

read, watched = text.read, text.watched


def parts(target: str) -> list[str]:  # noqa: ARG001 - no label that could be counted
    """None."""
    return []


def found(target: str) -> frozenset[Found]:  # noqa: ARG001 - as above
    """None."""
    return frozenset()


def fault(target: str, labels: Sequence[str]) -> str:
    """That it is none of the texts that can be found."""
    return "" if target in labels else f"{target[:80]!r} is none of the {len(labels)} texts that can be found"


METRICS = {"accuracy": exact_match}
