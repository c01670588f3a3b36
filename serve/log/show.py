"""Answers of the prediction log as a person reads them on a terminal."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from jobs.show import table

_WIDTH = 48  # characters of a cell
_WHOLE = frozenset({"prediction_id"})  # what is copied from there


def answers(found: pa.Table) -> str:
    """A line for each, of any length; of a long text its beginning."""
    lines = [[_cell(name, value) for name, value in row.items()] for row in found.to_pylist()]
    return table("", found.column_names, lines, width=None) if lines else "no answers"


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.3f}"
    text = _printable(str(value))
    return text if name in _WHOLE or len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _printable(text: str) -> str:
    """On one line, without what a terminal obeys: an input may move the cursor, a label turn the line around."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in " ".join(text.split()))
