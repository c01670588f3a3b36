"""Hands off: while a model is paused the watch looks and writes down, and changes nothing by itself.

A pause is begun in the journal by somebody, and done when somebody ends it. A version that the gate let pass meanwhile,
or that a person has to approve, awaits: so the journal says, until something is promoted, tried or rolled back.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence

from .journal import AWAITS, BEGUN, DONE, PAUSE, PROMOTION, ROLLBACK, TRIAL, VERDICT, Entry, Journal, open_entries


def paused(entries: Sequence[Entry]) -> Entry | None:
    """Of a model's journal, the pause that nobody has ended."""
    return next(iter(open_entries([entry for entry in entries if entry.kind == PAUSE])), None)


def said(entry: Entry) -> str:
    """Since when, by whom and why."""
    why = f": {entry.body['why']}" if entry.body["why"] else ""
    return f"paused since {entry.at:%Y-%m-%d %H:%M:%S} UTC by {entry.body['by']}{why}"


def awaiting(entries: Sequence[Entry]) -> Entry | None:
    """Of a model's journal, the version that passed and waits: its row, whose body says the version and why.

    A promotion that was begun and not done leaves it waiting, to be done again: the same act. A later verdict ends it.
    """
    awaits = [entry for entry in entries if entry.kind == AWAITS][-1:]
    return next((entry for entry in awaits if not any(_ends(later, entry) for later in entries)), None)


def _ends(later: Entry, awaits: Entry) -> bool:
    done = later.kind in {PROMOTION, ROLLBACK} and later.state == DONE
    if (done or later.kind == TRIAL) and later.body["version"] == awaits.body["version"]:
        return True  # whatever the clock of another machine says
    over = done or later.kind == TRIAL or (later.kind == VERDICT and later.key != awaits.key)
    return over and later.at > awaits.at


def pause(journal: Journal, model: str, why: str = "", by: str | None = None) -> Entry:
    """The pause there is, or a new one."""
    entries = journal.entries(model, PAUSE)
    before = paused(entries)
    if before is not None:
        return before
    # Numbered, and a number is written once: two who pause at the same moment make one pause.
    key = str(1 + sum(entry.state == BEGUN for entry in entries))
    journal.write(model, PAUSE, BEGUN, key, {"by": by or somebody(), "why": why})
    return next(entry for entry in journal.entries(model, PAUSE) if (entry.key, entry.state) == (key, BEGUN))


def resume(journal: Journal, model: str, by: str | None = None) -> Entry | None:
    """The pause that it ends; None where there was none."""
    before = paused(journal.entries(model, PAUSE))
    if before is not None:
        journal.write(model, PAUSE, DONE, before.key, {**before.body, "ended_by": by or somebody()})
    return before


def somebody() -> str:
    """Who runs this."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
