"""Hands off: while a model is paused the watch looks and writes down, and changes nothing by itself.

A pause is begun in the journal by somebody, and done when somebody ends it.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Sequence

from .journal import BEGUN, DONE, PAUSE, Entry, Journal, open_entries


def paused(entries: Sequence[Entry]) -> Entry | None:
    """Of a model's journal, the pause that nobody has ended."""
    return next(iter(open_entries([entry for entry in entries if entry.kind == PAUSE])), None)


def said(entry: Entry) -> str:
    """Since when, by whom and why."""
    why = f": {entry.body['why']}" if entry.body["why"] else ""
    return f"paused since {entry.at:%Y-%m-%d %H:%M:%S} UTC by {entry.body['by']}{why}"


def pause(journal: Journal, model: str, why: str = "", by: str | None = None) -> Entry:
    """The pause there is, or a new one."""
    before = paused(journal.entries(model, PAUSE))
    if before is None:
        key = str(time.time_ns())
        journal.write(model, PAUSE, BEGUN, key, {"by": by or somebody(), "why": why})
        before = paused(journal.entries(model, PAUSE))
    assert before is not None
    return before


def resume(journal: Journal, model: str, by: str | None = None) -> Entry | None:
    """The pause that it ends; None where there was none."""
    before = paused(journal.entries(model, PAUSE))
    if before is not None:
        journal.write(model, PAUSE, DONE, before.key, {**before.body, "ended_by": by or somebody()})
    return before


def somebody() -> str:
    """Who runs this."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
