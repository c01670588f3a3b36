"""Spools: nothing that was answered is lost, and each row reaches its Delta table exactly once.

A replica appends every record to a local file before it answers. From time to time the file is sealed (renamed), its
rows are appended to Delta under a transaction id made from the file's name, and the file is deleted. Killed between any
two of these steps, the next flush repeats the last one, and Delta's own log says whether it had landed.

All replicas of a node seal at the same ticks, and whoever has its turn (flock on the folder) moves what all of them
have sealed in one commit: the log gets as many files as there are nodes, not replicas.

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
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from cluster.store.turn import turn
from serve.node import until_tick

from .predictions import KINDS, Record

log = logging.getLogger(__name__)


_PORTION = 64 * 2**20  # bytes of spools that are in memory at once
_GATHER = 0.1  # seconds after a tick in which all replicas of a node have sealed

Batch = tuple[list[dict[str, Any]], tuple[str, int]]
"""Rows and their transaction."""


class Appendable(Protocol):
    """What a flush asks of `cluster.store.tables.Table`: a batch whose transaction had landed before is left out."""

    def append_all(self, batches: Sequence[Batch]) -> int: ...


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
        """Seal, and move everything that is sealed on this node; the number of rows that were moved."""
        self.seal()
        return _move(self._folder, tables)

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
    """Move all that is sealed in a folder and what processes that are gone have left there; the number of rows."""
    with ExitStack() as held:
        orphans = [lock.stem for lock in sorted(folder.glob("*.lock")) if held.enter_context(_owned(lock))]
        for spool in orphans:
            for left in folder.glob(f"{spool}.*.open"):
                left.rename(left.with_suffix(".sealed"))
        moved = _move(folder, tables)
        for spool in orphans:
            if not _sealed(folder, spool):
                (folder / f"{spool}.lock").unlink(missing_ok=True)
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


def _sealed(folder: Path, spool: str = "*") -> list[Path]:
    return sorted(folder.glob(f"{spool}.*.sealed"), key=lambda path: (_spool(path), _number(path)))


def _spool(path: Path) -> str:
    return path.name.split(".")[0]


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])


def _move(folder: Path, tables: Mapping[str, Appendable]) -> int:
    """Sealed files, those of a spool in order. A failure ends it: a later number that landed would hide an earlier one.

    A spool that cannot be read is logged, left as it is, and does not hold up the others.
    """
    moved, spoiled = 0, set[str]()
    with turn(folder):
        for portion in _portions(_sealed(folder)):
            batches: dict[str, list[Batch]] = defaultdict(list)
            gathered = [path for path in portion if _gather(path, batches, spoiled)]
            for name, made in batches.items():
                tables[name].append_all(made)
                moved += sum(len(rows) for rows, _ in made)
            for path in gathered:
                path.unlink(missing_ok=True)  # of another version, which knows no turns
    return moved


def _portions(paths: Sequence[Path]) -> Iterator[list[Path]]:
    portion, size = list[Path](), 0
    for path in paths:
        portion.append(path)
        size += path.stat().st_size
        if size >= _PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _gather(path: Path, batches: dict[str, list[Batch]], spoiled: set[str]) -> bool:
    """Add a file's rows to the batches of their tables; False when it, or an earlier one of its spool, is damaged."""
    spool = _spool(path)
    if spool in spoiled:
        return False
    try:
        rows = _rows(path)
    except Exception:
        # Whatever a bad disk or another version has made of it: it is kept.
        log.exception("a spool could not be read; its rows stay in %s", path)
        spoiled.add(spool)
        return False
    for name, part in rows.items():
        batches[name].append((part, (f"spool-{spool}-{name}", _number(path))))
    return True


def _rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by table. A last line without its end was cut off by a kill, before anything was answered."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            record = json.loads(line)
            name = record.pop("table")
            rows[name].append(KINDS[name].from_record(record).to_row())
    return rows


class Flusher:
    """Seals a spool every `seconds`, when all of its node do, and moves what is sealed there: in its own thread."""

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
                self._spool.seal()
                self._ended.wait(min(_GATHER, self._seconds / 10))
                adopt(self._folder, self._tables)
            except Exception:
                # Whatever the storage's fault is: the rows are in the spool and the next round tries again.
                log.exception("the prediction log could not be written; rows stay spooled in %s", self._folder)
            if self._ended.wait(until_tick(str(self._folder), self._seconds, time.time())):
                return
