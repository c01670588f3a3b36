"""Delta tables under the storage root: append once, read with a filter.

One call to `append` with the same `transaction` lands exactly once, whoever repeats it: delta-rs keeps
the last number of each application id in the table's own log (Delta protocol, `SetTransaction`), and refuses a
commit whose application id has moved on since the table was opened.

Reading is DataFusion's, in SQL: it streams, and what may be too much to load need not be (`select`). Arrow's own reader
goes through a file system in Python, whose threads abort a process that ends right after reading.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from cluster.errors import ClusterError

from .storage import Storage

_ATTEMPTS = 10  # to commit, when other writers come first
_PAUSE = 0.1  # seconds, at most as many times as there were attempts before
_UNREAD = timedelta(days=1)  # how long a reader may take with the files that it has found

Filters = Iterable[tuple[str, str, Any]]
"""`(column, op, value)`, all of which must hold."""


@dataclass(frozen=True)
class Tidied:
    """Files that a table's rows were in before and are in now, rows deleted, files removed from the store."""

    before: int
    after: int
    deleted: int
    removed: int


class Table:
    """An append-only table. `schema` holds the columns; `partition_by` names the folders."""

    def __init__(self, storage: Storage, name: str, schema: pa.Schema, partition_by: list[str] | None = None) -> None:
        self.url = storage.url("tables", name)
        self.schema, self.partition_by = schema, partition_by or []
        self._was_there = False

    def _open(self) -> DeltaTable | None:
        try:
            return DeltaTable(self.url)
        except TableNotFoundError:
            return None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written to it."""
        return self._open() is None

    def append(self, rows: list[dict[str, Any]], transaction: tuple[str, int] | None = None) -> bool:
        """Add rows; False when `transaction` (application id, rising number) has already landed."""
        return self._append([(pa.Table.from_pylist(rows, schema=self.schema), transaction)]) > 0

    def append_all(self, batches: Sequence[tuple[list[dict[str, Any]], tuple[str, int]]]) -> int:
        """Add batches, each with its own transaction, in one commit; how many had not landed before."""
        return self._append([(pa.Table.from_pylist(rows, schema=self.schema), key) for rows, key in batches])

    def _append(self, batches: Sequence[tuple[pa.Table, tuple[str, int] | None]]) -> int:
        for attempt in range(_ATTEMPTS):
            try:
                return self._commit(batches)
            except CommitFailedError as error:  # another writer made the table, or landed this very transaction
                refused = error
                time.sleep(random.uniform(0, _PAUSE * attempt))  # noqa: S311 - so that writers do not meet again
        raise refused

    def _commit(self, batches: Sequence[tuple[pa.Table, tuple[str, int] | None]]) -> int:
        was_there = self._was_there  # asked before looking: another thread may make the table in between
        # The table as it is now and not its URL: what lands after this line makes the commit fail.
        table = self._open()
        if table is None and was_there:
            # As of a volume that is no longer mounted: what is written there now nobody finds later.
            raise ClusterError("the table was there and is gone", where=self.url, mend="bring the storage root back")
        if table is None:
            table = DeltaTable.create(self.url, self.schema, mode="ignore", partition_by=self.partition_by or None)
        self._was_there = True
        new = [(data, key) for data, key in batches if key is None or not _landed(table, key)]
        if not new:
            return 0
        last: dict[str, int] = {}
        for _, key in new:
            if key is not None:
                last[key[0]] = max(key[1], last.get(key[0], key[1]))
        commit = CommitProperties(app_transactions=[Transaction(app, number) for app, number in last.items()])
        write_deltalake(
            table,
            pa.concat_tables([data for data, _ in new]),
            mode="append",
            partition_by=self.partition_by or None,
            commit_properties=commit,
        )
        return len(new)

    def tidy(self, filters: Filters = (), unread: timedelta = _UNREAD, within: Filters = ()) -> Tidied:
        """Make few large files of many small ones, after deleting the rows that meet every filter (none without one).

        `within`: filters on the columns of `partition_by`; the files of other partitions are left as they are.
        Readers and writers go on: they have the version that they began with, whose files stay for `unread`. What was
        written once stays so: transactions are in the table's log, not in its files.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._tidied(list(filters), unread, list(within))
            except CommitFailedError as error:  # a writer changed what was about to be changed
                refused = error
        raise refused

    def _tidied(
        self, filters: list[tuple[str, str, Any]], unread: timedelta, within: list[tuple[str, str, Any]]
    ) -> Tidied:
        table = self._open()
        if table is None:
            return Tidied(0, 0, 0, 0)
        before = len(table.file_uris(file_pruning_predicate=within or None))
        gone = where([*within, *filters], "")
        deleted = int(table.delete(gone).get("num_deleted_rows") or 0) if filters else 0
        table.optimize.compact(within or None)
        hours = int(unread / timedelta(hours=1))
        removed = table.vacuum(hours, dry_run=False, enforce_retention_duration=False)
        return Tidied(before, len(table.file_uris(file_pruning_predicate=within or None)), deleted, len(removed))

    def read(self, filters: Filters | None = None, columns: list[str] | None = None) -> pa.Table:
        """Rows that meet every filter, in no order; an empty table when nothing was ever written."""
        names = columns or self.schema.names
        fields = pa.schema([self.schema.field(name) for name in names])
        chosen = ", ".join(f't."{name}"' for name in names)
        found = select(f"SELECT {chosen} FROM t WHERE {where(filters or (), 't')}", {"t": self})  # noqa: S608 - quoted
        return fields.empty_table() if found is None else found.cast(fields)


def _landed(table: DeltaTable, key: tuple[str, int]) -> bool:
    landed = table.transaction_version(key[0])
    return landed is not None and landed >= key[1]


def select(sql: str, tables: Mapping[str, Table]) -> pa.Table | None:
    """The answer of one query over tables by name; None when one of them was never written to.

    Only what the query must hold is in memory: `ORDER BY ... LIMIT n` holds n rows, a join the smaller side.
    """
    found = stream(sql, tables)
    return None if found is None else found.read_all()


def stream(sql: str, tables: Mapping[str, Table]) -> pa.RecordBatchReader | None:
    """As `select`, a batch at a time: an answer may be larger than memory."""
    builder = QueryBuilder()
    for name, table in tables.items():
        opened = table._open()  # noqa: SLF001 - the same file
        if opened is None:
            return None
        builder.register(name, opened)
    found = pa.RecordBatchReader.from_stream(builder.execute(sql))
    # DataFusion's string views are not everywhere taken for strings.
    plain = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in found.schema]
    return found.cast(pa.schema(plain))


def where(filters: Filters, table: str) -> str:
    """Filters as the condition of a query, for the columns of `table` ("" where there is one); `in` takes a list."""
    return (
        " AND ".join(
            _condition(f'{table}."{column}"' if table else f'"{column}"', op, value) for column, op, value in filters
        )
        or "TRUE"
    )


def _condition(column: str, op: str, value: object) -> str:
    # Nothing is in an empty list. `IN (NULL)` would say so, but DataFusion takes it for true of a partition's column.
    return "FALSE" if value == [] else f"{column} {op} {_literal(value)}"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_literal, value))})"
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"SQL has no literal for {value}")
    if isinstance(value, int | float):  # in quotes DataFusion would compare a number as text
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"
