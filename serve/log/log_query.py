"""Questions to the prediction log: which answers, with the true label that came in last.

Partitions and columns that a question does not need are not read, and what is found is handed on a batch at a time. In
memory are the labels that came in since, to join with, and where there is a limit as many rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cluster.errors import ClusterError, UserError
from cluster.store.storage import Storage
from cluster.store.tables import Filters, stream, where

from .predictions import feedback_log, parse_id, prediction_log

COLUMNS = (
    *("prediction_id", "at", "model", "version", "input", "label", "confidence", "scores", "embedding"),
    *("true_label", "labelled_at"),
)
PLAIN = tuple(name for name in COLUMNS if name != "embedding")
SHOWN = ("at", "version", "label", "confidence", "true_label", "input", "prediction_id")
_LABELS = {"true_label": ("label", "Utf8"), "labelled_at": ("at", 'Timestamp(Microsecond, Some("UTC"))')}
_AGO = re.compile(r"(?P<number>\d{1,6})(?P<unit>[mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)  # before any answer
_ABOUT = timedelta(days=1)  # by which the clocks of two machines surely agree


@dataclass(frozen=True)
class Query:
    """Which answers: all that is said must hold. `since` is the first time, `until` the first that is too late.

    `wrong` are those whose true label is another, `contains` is looked for to the letter.
    """

    since: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    label: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    unlabelled: bool = False
    wrong: bool = False
    contains: str | None = None
    ids: tuple[str, ...] = ()


def moment(text: str, now: datetime) -> datetime:
    """`2026-03-01`, `2026-03-01T12:30`, with an offset or in UTC; or `90m`, `24h`, `7d` ago. Raises UserError."""
    try:
        at = _moment(text, now)
    except (ValueError, OverflowError):  # no date, or none that the calendar has
        at = None
    if at is None or at < _FIRST:
        raise UserError(f"{text!r} is no time", mend="write 2026-03-01, 2026-03-01T12:30, 90m, 24h or 7d")
    return at


def _moment(text: str, now: datetime) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago["number"]) * _UNITS[ago["unit"]]
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def rows(storage: Storage, model: str, query: Query, columns: Sequence[str], limit: int) -> pa.Table:
    """The last `limit` answers that are asked for, the newest first. Raises UserError."""
    asked = _Asked(storage, model, query, columns)
    # When the oldest of them was answered: only then is what is wide read, from there on.
    times = asked.answer(["at"], f"ORDER BY at DESC LIMIT {limit}")
    if times is None or not (start := min(times.read_all()["at"].to_pylist(), default=None)):
        return asked.nothing
    found = asked.answer(columns, f"ORDER BY p.at DESC, p.prediction_id DESC LIMIT {limit}", start)
    return asked.nothing if found is None else found.read_all().cast(asked.nothing.schema)


def target(csv: Path | None, parquet: Path | None) -> Path | None:
    """The file to write, if any, whose name says what it is. Raises UserError."""
    if csv is not None and parquet is not None:
        raise UserError("one file at a time", where="--csv", mend="leave --csv or --parquet out")
    for file, suffix in ((csv, ".csv"), (parquet, ".parquet")):
        if file is not None and file.suffix != suffix:
            raise UserError(f"does not end with {suffix}", where=str(file))
    return csv or parquet


def export(storage: Storage, model: str, query: Query, columns: Sequence[str], file: Path, limit: int | None) -> int:
    """Write to a `.csv` or `.parquet` file, in no order unless there is a limit; the number of rows.

    A file that was there is replaced when all is written. Raises UserError, ClusterError where there is no room.
    """
    asked = _Asked(storage, model, query, columns)
    if not file.parent.is_dir():
        raise UserError("no such folder", where=str(file.parent))
    if file.is_dir():
        raise UserError("is a folder", where=str(file))
    if file.suffix == ".csv" and "embedding" in columns:
        raise UserError("CSV holds no embeddings", where="--columns", mend="write Parquet")
    ordered = "" if limit is None else f"ORDER BY p.at DESC, p.prediction_id DESC LIMIT {limit}"
    found, count = asked.answer(columns, ordered), 0
    schema = asked.nothing.schema
    with _written(file, schema) as write:
        for batch in found.cast(schema) if found is not None else ():
            write.write_batch(batch)
            count += batch.num_rows
    return count


class _Asked:
    """A question, and the tables that it is put to. Raises UserError for one that has no answer."""

    def __init__(self, storage: Storage, model: str, query: Query, columns: Sequence[str]) -> None:
        _require(model, query, columns)
        self._log, self._feedback = prediction_log(storage), feedback_log(storage)
        self._model, self._query = model, query
        self._labelled = not self._feedback.is_empty
        known = {field.name: field for field in self._log.schema}
        known |= {
            "true_label": pa.field("true_label", pa.string()),
            "labelled_at": known["at"].with_name("labelled_at"),
        }
        self.nothing = pa.schema([known[name] for name in columns]).empty_table()

    def answer(self, columns: Sequence[str], end: str, start: datetime | None = None) -> pa.RecordBatchReader | None:
        """None where nothing was ever answered."""
        query = self._query
        joined = self._labelled and (query.unlabelled or query.wrong or not _LABELS.keys().isdisjoint(columns))
        if query.wrong and not joined:
            return None
        source = f"({self._labels(start)}) k RIGHT JOIN p ON p.prediction_id = k.prediction_id" if joined else "p"
        conditions = [where(self._filters(start), "p")]
        conditions += ["k.prediction_id IS NULL"] if joined and query.unlabelled else []
        conditions += ["k.label <> p.label"] if query.wrong else []
        chosen = ", ".join(_column(name, joined) for name in columns)
        sql = f"SELECT {chosen} FROM {source} WHERE {' AND '.join(conditions)} {end}"
        return stream(sql, {"p": self._log} | ({"f": self._feedback} if joined else {}))

    def _labels(self, start: datetime | None) -> str:
        """The label that came in last of each answer."""
        filters: list[tuple[str, str, Any]] = [("model", "=", self._model)]
        since = max(filter(None, [start, self._query.since]), default=None)
        if since is not None:
            # A label comes after its answer.
            filters.append(("day", ">=", f"{since - _ABOUT:%Y-%m-%d}"))
        if self._query.ids:
            filters.append(("prediction_id", "in", list(self._query.ids)))
        return f"""SELECT prediction_id, label, at FROM (
            SELECT prediction_id, label, at, row_number() OVER (PARTITION BY prediction_id ORDER BY at DESC) AS nth
            FROM f WHERE {where(filters, "f")}) WHERE nth = 1"""

    def _filters(self, start: datetime | None) -> Filters:
        query = self._query
        yield "model", "=", self._model
        since = max(filter(None, [start, query.since]), default=None)
        if since is not None:
            # The day is a partition: whole folders are left unread.
            yield from (("day", ">=", f"{since:%Y-%m-%d}"), ("at", ">=", since))
        if query.until is not None:
            yield from (("day", "<=", f"{query.until:%Y-%m-%d}"), ("at", "<", query.until))
        said = {"version": ("=", query.version), "label": ("=", query.label)}
        yield from ((name, op, value) for name, (op, value) in said.items() if value is not None)
        bounds = ((">=", query.min_confidence), ("<=", query.max_confidence))
        yield from (("confidence", op, value) for op, value in bounds if value is not None)
        if query.contains is not None:
            yield "input", "LIKE", f"%{_escaped(query.contains)}%"
        if query.ids:
            times = [_time(one) for one in query.ids]
            yield "day", ">=", f"{min(times) - _ABOUT:%Y-%m-%d}"
            yield "day", "<=", f"{max(times) + _ABOUT:%Y-%m-%d}"
            yield "prediction_id", "in", list(query.ids)


def _require(model: str, query: Query, columns: Sequence[str]) -> None:
    for name, bound in (("--min-confidence", query.min_confidence), ("--max-confidence", query.max_confidence)):
        if bound is not None and not math.isfinite(bound):
            raise UserError(f"{bound} is no number", where=name)
    for name, text in (("--contains", query.contains), ("--label", query.label)):
        if text is not None and not _is_text(text):
            raise UserError("is no text in UTF-8", where=name)
    strange = [name for name in columns if name not in COLUMNS]
    if strange or not columns:
        raise UserError(f"{', '.join(strange) or 'nothing'} is no column", mend=f"columns are {', '.join(COLUMNS)}")
    if query.wrong and query.unlabelled:
        raise UserError("what has no label cannot be wrong", where="--wrong", mend="leave --unlabelled out")
    if query.since and query.until and query.since >= query.until:
        raise UserError("is not before --until", where="--since")
    for one in query.ids:
        if parse_id(one)[0] != model:
            raise UserError(f"is an answer of another model than {model!r}", where=one)


def _is_text(text: str) -> bool:
    """Bytes of a command line that are none come as lone surrogates."""
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)


def _column(name: str, joined: bool) -> str:
    if name not in _LABELS:
        return f'p."{name}"'
    column, kind = _LABELS[name]
    value = f'k."{column}"' if joined else f"arrow_cast(NULL, '{kind}')"
    return f'{value} AS "{name}"'


def _escaped(text: str) -> str:
    """For LIKE, to the letter."""
    return re.sub(r"([\\%_])", r"\\\1", text)


def _time(prediction_id: str) -> datetime:
    """When an id was made, which it says itself (`predictions.new_id`)."""
    return datetime.fromtimestamp(int(prediction_id.rsplit(".", 1)[1][:14], 16) / 1e6, UTC)


_WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}


@contextmanager
def _written(file: Path, schema: pa.Schema) -> Iterator[Any]:
    part = file.with_name(f"{file.name}.part")
    try:
        with _WRITERS[file.suffix](part, schema) as writer:
            yield writer
        part.replace(file)
    except OSError as error:
        raise ClusterError(f"cannot be written: {error}", where=str(file), mend="what was there is left") from error
    finally:
        part.unlink(missing_ok=True)
