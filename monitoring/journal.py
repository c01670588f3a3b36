"""The loop's journal: what was about to be done and what was done, append only, each row once.

Whoever starts after a crash reads it, finds what is begun and not ended, and goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cluster.store.storage import Storage
from cluster.store.tables import Table

BEGUN, DONE, FAILED = "begun", "done", "failed"
WINDOW, DECISION, RETRAIN, EVALUATED, VERDICT = "window", "decision", "retrain", "evaluated", "verdict"
PROMOTION, ROLLBACK, TRIAL, LOOK = "promotion", "rollback", "trial", "look"
PAUSE, AWAITS, RETIREMENT, TIDIED = "pause", "awaits", "retirement", "tidied"

_SCHEMA = pa.schema(
    [("id", pa.string()), ("at", pa.timestamp("us", tz="UTC"))]
    + [(name, pa.string()) for name in ("model", "kind", "state", "key", "body")]
)


@dataclass(frozen=True)
class Entry:
    """One row. `kind` is one of the words above, `key` tells one act from another."""

    id: str
    at: datetime
    model: str
    kind: str
    state: str
    key: str
    body: Mapping[str, Any]


def table(storage: Storage) -> Table:
    return Table(storage, "journal", _SCHEMA, partition_by=["model"])


def utc_now() -> datetime:
    return datetime.now(UTC)


class Journal:
    def __init__(self, storage: Storage, clock: Callable[[], datetime] = utc_now) -> None:
        self._table = table(storage)
        self._clock = clock

    def write(self, model: str, kind: str, state: str, key: str, body: Mapping[str, Any]) -> bool:
        """Add a row; False when this kind, key and state is already there, which is left as it is."""
        name = f"{kind}/{key}/{state}"
        row = {"id": name, "at": self._clock(), "model": model, "kind": kind, "state": state, "key": key}
        return self._table.append([row | {"body": json.dumps(body, sort_keys=True)}], (f"{model}/{name}", 1))

    def entries(self, model: str, kind: str | None = None) -> list[Entry]:
        """Oldest first."""
        filters: list[tuple[str, str, Any]] = [("model", "=", model)]
        if kind is not None:
            filters.append(("kind", "=", kind))
        found = [Entry(**{**row, "body": json.loads(row["body"])}) for row in self._table.read(filters).to_pylist()]
        return sorted(found, key=lambda entry: (entry.at, entry.state != BEGUN))

    def unfinished(self, model: str, kind: str | None = None) -> list[Entry]:
        """What was begun and has neither ended nor failed, oldest first."""
        return open_entries(self.entries(model, kind))


def open_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Those of some entries that were begun and have neither ended nor failed."""
    ended = {(entry.kind, entry.key) for entry in entries if entry.state != BEGUN}
    return [entry for entry in entries if entry.state == BEGUN and (entry.kind, entry.key) not in ended]
