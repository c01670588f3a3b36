"""Spools: nothing that was answered is lost, and each row reaches its Delta table exactly once.

A replica appends every record to a local file before it answers. From time to time the file is sealed (renamed), its
rows are appended to Delta under a transaction id made from the file's name, and the file is deleted. Killed between any
two of these steps, the next flush repeats the last one, and Delta's own log says whether it had landed.

    <spool>.lock            held (flock) by the living owner: a spool whose lock is free is an orphan
    <spool>.<number>.open   being written
    <spool>.<number>.sealed to be moved, in the order of its number

A record is safe from the death of its process once it is written; it is not synced to the disk, so a power cut can
still lose the last moments.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .predictions import KINDS, Record

log = logging.getLogger(__name__)


class Appendable(Protocol):
    """What a flush asks of `cluster.tables.Table`: False when the transaction had landed before."""

    def append(self, rows: list[dict[str, object]], transaction: tuple[str, int] | None = None) -> bool: ...


class Spool:
    """One process's own spool. Safe to append to from several threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.id = folder, uuid.uuid4().hex
        self._lock, self._number = threading.Lock(), 0
        self._owner = _own(folder / f"{self.id}.lock")
        self._file: int | None = None

    def append(self, records: Sequence[Record]) -> None:
        """Returns when the operating system has the records. Raises OSError, as on a full disk."""
        lines = (json.dumps({"table": record.table, **record.to_record()}) for record in records)
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._lock:
            if self._file is None:
                self._file = os.open(self._open_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._write(data)

    def seal(self) -> None:
        """Close what has been written so far, for the next flush."""
        with self._lock:
            if self._file is None:
                return
            os.close(self._file)
            self._file = None
            self._open_path.rename(self._open_path.with_suffix(".sealed"))
            self._number += 1

    def flush(self, tables: Mapping[str, Appendable]) -> int:
        """Seal and move everything; the number of rows that were moved."""
        self.seal()
        return _move(self._folder, self.id, tables)

    def close(self) -> None:
        """Give the spool up; what was not flushed is an orphan's."""
        self.seal()
        if not _sealed(self._folder, self.id):
            (self._folder / f"{self.id}.lock").unlink(missing_ok=True)
        os.close(self._owner)

    @property
    def _open_path(self) -> Path:
        return self._folder / f"{self.id}.{self._number}.open"

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        before = os.fstat(self._file).st_size
        written = os.write(self._file, data)
        if written != len(data):
            # A disk that filled up half way: take the half back, so that no later record follows a torn one.
            os.ftruncate(self._file, before)
            raise OSError(f"only {written} of {len(data)} bytes could be written to {self._open_path}")


def adopt(folder: Path, tables: Mapping[str, Appendable]) -> int:
    """Move what processes that are gone have left in a folder; the number of rows.

    An orphan that cannot be moved is logged, left as it is for the next time, and does not hold up the others.
    """
    moved = 0
    for lock in sorted(folder.glob("*.lock")):
        with _owned(lock) as mine:
            if mine:
                moved += _adopt_one(folder, lock, tables)
    return moved


def _adopt_one(folder: Path, lock: Path, tables: Mapping[str, Appendable]) -> int:
    for left in folder.glob(f"{lock.stem}.*.open"):
        left.rename(left.with_suffix(".sealed"))
    try:
        moved = _move(folder, lock.stem, tables)
    except Exception:
        # A storage that is away, or a file that a bad disk has damaged: both are kept.
        log.exception("an orphaned spool could not be moved; its rows stay in %s/%s.*", folder, lock.stem)
        return 0
    lock.unlink(missing_ok=True)
    return moved


def _own(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file
        # Between its making and its locking another process took it for an orphan's and removed it.
        os.close(file)


@contextmanager
def _owned(lock: Path) -> Iterator[bool]:
    """Holds an orphan's lock inside the block; False when its owner lives or another process has it."""
    try:
        file = os.open(lock, os.O_RDWR)
    except FileNotFoundError:  # adopted by another process since it was listed
        yield False
        return
    try:
        yield _locked(file)
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sealed(folder: Path, spool: str) -> list[Path]:
    return sorted(folder.glob(f"{spool}.*.sealed"), key=_number)


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])


def _move(folder: Path, spool: str, tables: Mapping[str, Appendable]) -> int:
    """Sealed files in order. A failure ends the round: a later number that landed would hide an earlier one."""
    moved = 0
    for path in _sealed(folder, spool):
        rows = _rows(path)
        for name, part in rows.items():
            tables[name].append(part, (f"spool-{spool}-{name}", _number(path)))
        path.unlink()
        moved += sum(map(len, rows.values()))
    return moved


def _rows(path: Path) -> dict[str, list[dict[str, object]]]:
    """Rows by table. A last line without its end was cut off by a kill, before anything was answered."""
    rows: dict[str, list[dict[str, object]]] = defaultdict(list)
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            record = json.loads(line)
            name = record.pop("table")
            rows[name].append(KINDS[name].from_record(record).to_row())
    return rows


class Flusher:
    """Moves a spool, and orphans beside it, every `seconds` in a thread of its own until `stop`."""

    def __init__(self, spool: Spool, folder: Path, tables: Mapping[str, Appendable], seconds: float) -> None:
        self._spool, self._folder, self._tables, self._seconds = spool, folder, tables, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush for the last time. Raises what the last flush raised: the rows stay in the spool."""
        self._ended.set()
        self._thread.join()
        self._spool.flush(self._tables)
        self._spool.close()

    def _run(self) -> None:
        while True:
            try:
                self._spool.flush(self._tables)
            except Exception:
                # Whatever the storage's fault is: the rows are in the spool and the next round tries again.
                log.exception("the prediction log could not be written; rows stay spooled in %s", self._folder)
            adopt(self._folder, self._tables)
            if self._ended.wait(self._seconds):
                return
