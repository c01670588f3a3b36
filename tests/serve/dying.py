"""Replicas that are killed: a process that forks writers over one spool folder and ends them with SIGKILL.

    python -m tests.serve.dying SPOOL STORE ACKNOWLEDGED KILLS SEED

A fork costs milliseconds where a new interpreter costs seconds, so many can die in a test. Each writer appends to the
spool, acknowledges, and flushes as a replica does; it dies where it is told to, or wherever it is when its time has come.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.store.storage import Storage
from cluster.store.tables import Table
from serve.log.predictions import Feedback, tables, utc_now
from serve.log.spool import Batch, Flusher, Spool

from .test_predictions import prediction

POINTS = ("any", "any", "any", "any", "half a line", "before the commit", "after the commit", "after the first table")
_WRITERS = 2
_FLUSH = 0.03  # seconds


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingTable:
    """A Delta table; its process dies before or after the commit with that number."""

    def __init__(self, table: Table, commits: int, after: bool) -> None:
        self._table, self._left, self._after = table, commits, after

    def append_all(self, batches: Sequence[Batch]) -> int:
        self._left -= 1
        if not self._left and not self._after:
            die()
        landed = self._table.append_all(batches)
        if not self._left:
            die()
        return landed


class DyingSpool(Spool):
    """Its process dies in the middle of that many lines."""

    left = 0

    def _write(self, data: bytes) -> None:
        self.left -= 1
        if not self.left:
            assert self._file is not None
            os.write(self._file, data[: len(data) // 2])
            die()
        super()._write(data)


def write(folder: Path, storage: Storage, acknowledged: Path, point: str, draw: random.Random) -> None:
    """Never returns."""
    into: Mapping[str, Table | DyingTable] = tables(storage)
    spool = DyingSpool(folder)
    if point == "half a line":
        spool.left = draw.randint(1, 60)
    if "commit" in point:
        into = {**into, "predictions": DyingTable(tables(storage)["predictions"], draw.randint(1, 2), "after" in point)}
    if point == "after the first table":
        into = {**into, "feedback": DyingTable(tables(storage)["feedback"], draw.randint(1, 2), after=False)}
    Flusher(spool, folder, into, _FLUSH)
    told = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        made = [prediction() for _ in range(draw.randint(1, 3))]
        spool.append([*made, Feedback(made[0].prediction_id, utc_now(), "m", "positive")])
        os.write(told, "".join(f"{one.prediction_id}\n" for one in made).encode())
        time.sleep(0.002)


def main(folder: Path, storage: Storage, acknowledged: Path, kills: int, seed: int) -> None:
    """Prints of each that died how it was to."""
    draw, living, born, died = random.Random(seed), dict[int, str](), 0, 0
    while died < kills:
        while len(living) < _WRITERS:
            point = POINTS[born % len(POINTS)]
            child = os.fork()
            if not child:
                write(folder, storage, acknowledged.with_suffix(f".{born}"), point, random.Random(f"{seed} {born}"))
            living[child], born = point, born + 1
        time.sleep(draw.uniform(0.01, 0.25))
        # Who is to die somewhere is left alone until it has; now and then the whole node dies.
        anywhere = [child for child, point in living.items() if point == "any"]
        for child in list(living) if draw.random() < 0.1 else anywhere[:1]:
            os.kill(child, signal.SIGKILL)
        for child in list(living):
            if os.waitpid(child, os.WNOHANG)[0]:
                print(living.pop(child))
                died += 1
    for child in living:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Storage(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
