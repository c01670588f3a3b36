"""What keeps the tables quick and the store from growing for ever: `rehone tidy`, once a day by a cron job.

A server writes a file every `serving.flush_seconds`: tens of thousands a day. Answers and observations older than asked
for are deleted; labels and the journal never are, for they are few and what was decided is to be explained.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cluster.storage import Storage
from cluster.tables import Tidied
from jobs import show
from serve.predictions import FEEDBACK, tables

from . import journal


def tidy(storage: Storage, now: datetime, keep_days: float | None = None) -> dict[str, Tidied]:
    """Of every table by name. Without `keep_days` nothing is deleted."""
    oldest = None if keep_days is None else f"{now - timedelta(days=keep_days):%Y-%m-%d}"
    made = {}
    for name, table in tables(storage).items():
        expired = [] if oldest is None or name == FEEDBACK else [("day", "<", oldest)]
        made[name] = table.tidy(expired)
    return made | {"journal": journal.table(storage).tidy()}


def told(made: dict[str, Tidied]) -> str:
    """What a person reads."""
    rows = [[name, t.before, t.after, t.deleted, t.removed] for name, t in made.items()]
    return show.table("", ["table", "files before", "now", "rows deleted", "files removed"], rows)
