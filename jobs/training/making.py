"""Rows into numbers, a chunk at a time: in this process, or by Ray Data on all nodes; into the same file either way.

A fast tokenizer keeps all cores of its machine busy by itself, so that on one machine Ray Data only costs: 400,000
tweets took 28 s in this process and 50 s through it, some 17 s of them its start (two cores, `bench/making.py`). It is
used where there are more machines than this, and so many rows that its start is soon made up for.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from jobs import tasks
from jobs.models import model
from jobs.spec import Spec
from jobs.tasks.task import Encoded

from . import columns

_CHUNK, _CHARACTERS = 1024, 2**24  # rows that are made at a time and lie together, and what they may be read from
_BLOCK = 8  # chunks that Ray Data sends about at a time
_SPREAD_ROWS = 250_000  # tweets that this process makes in the time of Ray Data's start


class Maker:
    """Rows in, what the task makes of them out, in columns. Loads the tokenizer once."""

    def __init__(self, spec: Spec, labels: Sequence[str]) -> None:
        self._task, self._labels, self._bounds = tasks.get(spec.task), tuple(labels), spec.bounds
        self.processor = self._task.processor(model.locate(spec.base_model))

    def of(self, rows: pd.DataFrame) -> tuple[dict[str, pa.Array], Encoded]:
        """The columns of rows (`input, label`), and what the task makes of none."""
        inputs, targets = list(rows["input"]), list(rows["label"])
        return columns.parted(self._task.encode(self.processor, inputs, targets, self._labels, self._bounds))

    def __call__(self, rows: pd.DataFrame) -> pa.Table:
        """A batch of Ray Data."""
        return pa.table(self.of(rows)[0])


def made(rows: pd.DataFrame, spec: Spec, labels: Sequence[str], maker: Maker) -> Iterator[pa.Table]:
    """What becomes of the rows, in their order, each chunk when it is asked for."""
    if _spreads(len(rows)):
        return _by_ray(rows, spec, labels)
    size = _size(rows)
    return (maker(rows.iloc[at : at + size]) for at in range(0, len(rows), size))


def _size(rows: pd.DataFrame) -> int:
    """Rows a chunk: fewer where each is a picture or a recording."""
    characters = sum(map(len, rows["input"]))
    return max(1, min(_CHUNK, _CHARACTERS * len(rows) // max(1, characters)))


def _spreads(rows: int) -> bool:
    if rows < _SPREAD_ROWS:
        return False
    import ray

    return bool(ray.is_initialized()) and sum(node["Alive"] for node in ray.nodes()) > 1


def _by_ray(rows: pd.DataFrame, spec: Spec, labels: Sequence[str]) -> Iterator[pa.Table]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    size, whole = _size(rows), pa.Table.from_pandas(rows[["input", "label"]], preserve_index=False)
    blocks = [whole.slice(at, _BLOCK * size) for at in range(0, len(rows), _BLOCK * size)]
    data = ray.data.from_arrow(blocks)
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = True
    most = min(len(blocks), int(ray.cluster_resources()["CPU"]))
    encoded = data.map_batches(
        Maker,
        fn_constructor_args=(spec, tuple(labels)),
        batch_size=size,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
    )
    yield from encoded.iter_batches(batch_size=size, batch_format="pyarrow")


def write(path: Path, chunks: Iterator[pa.Table]) -> None:
    """One after another into an Arrow file, each as a record batch of it."""
    first = next(chunks)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, first.schema) as into:
        for chunk in itertools.chain([first], chunks):
            into.write_table(chunk.combine_chunks())
