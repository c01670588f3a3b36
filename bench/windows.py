"""What looking for a window costs as the prediction log grows, beside loading the log's columns.

    python bench/windows.py [ROWS ...]     default: 100000 1000000 10000000

A log of so many answers over ten days, the last 2% of them with a true label, is written to a temporary folder; then,
each in a process of its own, the watch's questions are asked: the next window from the start (nothing was judged, the
whole log lies ahead) and near the end (a watch that keeps up), how many labels have come in, and the rows last labelled
`loading` reads the two columns by which rows are ordered and sorts them in pandas, as this code once did.
Seconds, and by how much the process's peak memory (VmHWM of Linux) grew over its start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from cluster.store.storage import Storage
from jobs.show import table
from monitoring.windows import START, Position, labelled, labels_since, next_window
from serve.log.predictions import feedback_log, prediction_log

MODEL, WINDOW, HIDDEN, DAYS, CHUNK = "tiny", 250, 8, 10, 500_000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def write(storage: Storage, rows: int) -> None:
    rng = np.random.default_rng(0)
    for first in range(0, rows, CHUNK):
        at = np.arange(first, min(first + CHUNK, rows))
        times = np.datetime64("2026-01-01", "us") + (at * (DAYS * 86_400_000_000 // rows)).astype("timedelta64[us]")
        ids = np.char.add(f"{MODEL}.1.", np.char.zfill(np.char.mod("%x", at), 22))
        same = {"prediction_id": ids, "at": times, "day": np.datetime_as_string(times, "D"), "model": [MODEL] * len(at)}
        label = np.where(rng.random(len(at)) < 0.5, "negative", "positive")  # noqa: PLR2004
        points = rng.normal(size=len(at) * HIDDEN).astype(np.float32)
        answers = {
            **same,
            "version": np.ones(len(at), np.int64),
            "input": np.char.add("a text of about forty characters, number ", at.astype(str)),
            "label": label,
            "confidence": rng.random(len(at)),
            "scores": ['{"negative": 0.5, "positive": 0.5}'] * len(at),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(points), HIDDEN).cast(pa.list_(pa.float32())),
        }
        append(prediction_log(storage), answers)
        known = at >= 0.98 * rows
        append(feedback_log(storage), {name: np.asarray(c)[known] for name, c in (same | {"label": label}).items()})


def append(log, columns) -> None:  # noqa: ANN001
    arrays = [
        pa.array(columns[f.name]).cast(f.type) if f.name != "at" else pa.array(columns["at"], f.type)
        for f in log.schema
    ]
    write_deltalake(log.url, pa.table(arrays, schema=log.schema), mode="append", partition_by=log.partition_by)


def loading(storage: Storage, after: Position) -> None:
    order = (
        prediction_log(storage).read([("model", "=", MODEL), ("version", "=", 1)], ["at", "prediction_id"]).to_pandas()
    )
    order.sort_values(["at", "prediction_id"])[order["at"] > after.at].head(WINDOW)


def late(rows: int) -> Position:
    return Position(rows // WINDOW - 2, BEGAN + timedelta(days=DAYS * (1 - 500 / rows)), "")


ASKED: dict[str, Callable[[Storage, int], object]] = {
    "next window, from the start": lambda storage, _: next_window(storage, MODEL, 1, WINDOW, START),
    "next window, near the end": lambda storage, rows: next_window(storage, MODEL, 1, WINDOW, late(rows)),
    "labels that came in": lambda storage, _: labels_since(storage, MODEL, None),
    "last 2,000 labelled rows": lambda storage, _: labelled(storage, MODEL, 1, 2000),
    "loading, from the start": lambda storage, _: loading(storage, START),
}


def ask(root: str, rows: int, name: str) -> None:
    """In a process of its own: print seconds and MB."""
    before, start = peak(), time.perf_counter()
    ASKED[name](Storage(root), rows)
    print(f"{time.perf_counter() - start:.2f} {peak() - before:.0f}")


def peak() -> float:
    """MB. Not `ru_maxrss`, in which a child has its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(sizes: list[int]) -> str:
    found: dict[str, list[str]] = {name: [] for name in ASKED}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(Storage(folder), rows)
            for name in ASKED:
                call = [sys.executable, str(Path(__file__)), "ask", folder, str(rows), name]
                seconds, grown = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
                found[name].append(f"{seconds} s, {grown} MB")
    return table("", ["asked", *(f"{rows:,} answers" for rows in sizes)], [[name, *row] for name, row in found.items()])


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        print(main([int(rows) for rows in sys.argv[1:]] or [100_000, 1_000_000, 10_000_000]))
