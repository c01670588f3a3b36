"""What keeps the tables quick and the store from growing for ever.

A server writes a file every `serving.flush_seconds`, tens of thousands a day, and each window leaves megabytes of
reports. Answers, observations and reports older than asked for are deleted; labels and the journal never are, for they
are few and what was decided is to be explained.

The watch does it by itself for its model (`Upkeep`); `rehone tidy` does it for all, for who runs no watch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from cluster.console import say
from cluster.store.lease import Lease
from cluster.store.storage import Storage
from cluster.store.tables import Filters, Tidied
from jobs import show
from jobs.spec import MonitoringSpec
from serve.log.predictions import FEEDBACK, tables

from . import journal
from .drift import reports
from .journal import DONE, TIDIED, WINDOW, Journal


def tidy(
    storage: Storage, now: datetime, keep_days: float | None = None, model: str | None = None
) -> dict[str, Tidied]:
    """Of every table by name, and of the reports of windows; of one model or of all. Without `keep_days` nothing is
    deleted.
    """
    oldest = None if keep_days is None else f"{now - timedelta(days=keep_days):%Y-%m-%d}"
    within: Filters = [] if model is None else [("model", "=", model)]
    made = {}
    for name, table in tables(storage).items():
        expired = [] if oldest is None or name == FEEDBACK else [("day", "<", oldest)]
        made[name] = table.tidy(expired, within=within)
    made["journal"] = journal.table(storage).tidy(within=within)
    made["reports"] = _reports(storage, model, oldest)
    return made


def _reports(storage: Storage, model: str | None, oldest: str | None) -> Tidied:
    """Those of windows that were judged before that day."""
    models = [model] if model is not None else [name for name in storage.list("drift") if name != reports.UI]

    def files() -> int:
        return sum(len(storage.list(f"drift/{one}")) for one in models)

    before, gone = files(), 0
    if oldest is None:
        return Tidied(before, before, 0, 0)
    for one in models:
        windows = Journal(storage).entries(one, WINDOW)
        gone += reports.forget(storage, one, {each.key for each in windows if f"{each.at:%Y-%m-%d}" < oldest})
    return Tidied(before, files(), 0, gone)


def told(made: Mapping[str, Tidied]) -> str:
    """What a person reads."""
    rows = [[name, t.before, t.after, t.deleted, t.removed] for name, t in made.items()]
    return show.table("", ["table", "files before", "now", "rows deleted", "files removed"], rows)


class Upkeep:
    """A watch calls it whenever it has nothing to judge: every `tidy_hours` it tidies, and says what failed.

    Of several watches of a model, one: whoever has the term of that many hours has done it, or has died or failed as it
    did. What failed is tried again after the next one.
    """

    def __init__(
        self,
        model: str,
        spec: MonitoringSpec,
        storage: Storage,
        holder: str,
        clock: Callable[[], datetime] = journal.utc_now,
    ) -> None:
        self._model, self._spec, self._storage, self._clock = model, spec, storage, clock
        self._every = timedelta(hours=spec.tidy_hours)
        self._lease = Lease(storage, f"tidy-{model}", holder, self._every.total_seconds(), clock)
        self._next = clock()

    def __call__(self) -> None:
        now = self._clock()
        if not self._every or now < self._next:
            return
        self._next = now + self._every
        try:
            self._in_turn(now)
        except Exception as error:  # noqa: BLE001 - writers that came first, or the storage: no reason to end a watch
            again = f"again in {self._spec.tidy_hours:g} h"
            say(f"watch: the prediction log could not be tidied: {str(error) or type(error).__name__}; {again}")

    def _in_turn(self, now: datetime) -> None:
        term = self._lease.current()
        if term is not None:
            self._next = term.until
        elif self._lease.acquire():
            made = tidy(self._storage, now, self._spec.keep_days, self._model)
            body = {name: vars(t) for name, t in made.items()}
            Journal(self._storage, self._clock).write(self._model, TIDIED, DONE, f"{now:%Y-%m-%dT%H:%M:%S}", body)
            files, left, rows = (
                sum(getattr(t, part) for t in made.values()) for part in ("before", "after", "deleted")
            )
            say(f"watch: tidied the prediction log and its reports: {files} files are {left} now, {rows} rows deleted")
