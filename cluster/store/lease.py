"""A lease on a name, kept in the storage root: of all that want to lead only one does, and who dies is followed.

Each term is a file that can be made only once (`Storage.create`), so that of two who want the next one only one gets
it. Clocks of different machines must agree to well under a term. A leader that is held up for longer than its term may
find another beside it: what it does must be safe to do twice, as each step of the loop is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cluster.errors import NotFoundError

from .storage import Storage


@dataclass(frozen=True)
class Term:
    """`holder` leads until `until` (UTC) and may go on before that."""

    number: int
    holder: str
    until: datetime


@dataclass(frozen=True)
class Lease:
    """What one holder knows of the lease `name`. Terms last `seconds`."""

    storage: Storage
    name: str
    holder: str
    seconds: float
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def _place(self) -> str:
        return f"leases/{self.name}"

    def current(self) -> Term | None:
        """The term that runs, whoever has it; None when nobody leads."""
        term = self._last()
        return term if term is not None and term.until > self.clock() else None

    def acquire(self) -> bool:
        """Whether this holder leads now. Called again in time, in the second half of a term, it goes on leading."""
        now, last = self.clock(), self._last()
        mine = last is not None and last.holder == self.holder
        if last is not None and last.until > now and not mine:
            return False
        if last is not None and mine and last.until - now > timedelta(seconds=self.seconds / 2):
            return True
        return self._begin(last.number + 1 if last else 1, now + timedelta(seconds=self.seconds))

    def release(self) -> None:
        """End the own term, so that another need not wait for it."""
        term = self.current()
        if term is not None and term.holder == self.holder:
            self._begin(term.number + 1, self.clock())

    def _begin(self, number: int, until: datetime) -> bool:
        body = json.dumps({"holder": self.holder, "until": until.isoformat()}).encode()
        if not self.storage.create(self._path(number), body):
            return False
        # The one before stays: who has just listed it must find it.
        for old in self._numbers()[:-2]:
            self.storage.remove(self._path(old))
        return True

    def _last(self) -> Term | None:
        for number in reversed(self._numbers()):
            try:
                tree = self.storage.read_json(self._path(number))
            except NotFoundError:  # removed since it was listed: a later one is there
                continue
            return Term(number, tree["holder"], datetime.fromisoformat(tree["until"]))
        return None

    def _numbers(self) -> list[int]:
        return sorted(
            int(name.removesuffix(".json")) for name in self.storage.list(self._place) if name.endswith(".json")
        )

    def _path(self, number: int) -> str:
        return f"{self._place}/{number:012d}.json"
