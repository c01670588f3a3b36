"""What a worker holds of the rows it trains on, when it has its first batch and how fast it makes them.

    python bench/feeding.py             # about two minutes

Made rows of 8 to 120 tokens, batches of the training loop's own epochs. Each worker is a process of its own, and the
ways take turns. `lists`: the tokens of all rows as lists, read from Parquet, as one would have them; `rehone`: the
mapped file; `datasets`: Hugging Face's, mapped as well; `ray.data`: `iter_torch_batches` over the same rows, in the
order that Ray Data has them. Held is anonymous memory above what there was before the rows. Pages of a mapped file and
of Ray's object store are the machine's, shared by its workers, and counted apart. Ray runs when the clock starts.
Medians over the turns, the lowest and highest in brackets; a ratio is of one turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from spread import spread

from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from cluster.store.storage import Storage
from jobs.show import table
from jobs.training import batches, columns, making
from jobs.training.columns import Ragged
from jobs.training.tokens import Rows

BATCH, SEED, BATCHES, TURNS = 32, 0, 2000, 3
SHORTEST, LONGEST, VOCABULARY, LABELS = 8, 120, 30_000, 2
LEAST = BATCH * (BATCHES + 1)  # rows; the first batch is counted apart
WAYS = ("lists", "rehone", "datasets", "ray.data")

Batch = Mapping[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.rows < LEAST:
        parser.error(
            f"--rows {chosen.rows}: {LEAST} at least, for Ray Data goes through them once, in {BATCHES} batches"
        )
    if chosen.way:
        print(json.dumps(WORKERS[chosen.way](chosen.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokens = write(Path(folder), chosen.rows)
        turns = [{way: alone(__file__, way, "--folder", folder) for way in WAYS} for _ in range(chosen.turns)]
    millions = tokens / 1e6
    print(table(f"{chosen.rows} rows, {millions:.1f} million tokens", *shown(turns, millions)))


def shown(turns: Sequence[Mapping[str, Mapping[str, float]]], millions: float) -> tuple[list[str], list[list[str]]]:
    columns_ = {"held, MiB a million tokens": "held", "shared": "shared", "first batch, s": "first", "rows/s": "rate"}
    lines = []
    for head, what in columns_.items():
        of = millions if what in {"held", "shared"} else 1.0
        for way in WAYS:
            values = spread([turn[way][what] / of for turn in turns], "{:,.0f}" if what == "rate" else "{:.2f}")
            ratios = spread([turn[way][what] / turn["lists"][what] for turn in turns], "{:.3f}")
            lines.append([head, way, values, "" if what == "shared" else ratios])
    return ["", "", "", "of lists"], lines


def write(folder: Path, count: int) -> int:
    """The same rows as Parquet, as `datasets` has them and as a file of ours; how many tokens they are."""
    from datasets import Dataset

    draw = np.random.default_rng(SEED)
    sizes = draw.integers(SHORTEST, LONGEST + 1, count)
    flat = draw.integers(0, VOCABULARY, sizes.sum(), np.int32)
    ids = [part.tolist() for part in np.split(flat, sizes.cumsum()[:-1])]
    labels = draw.integers(0, LABELS, count)
    pq.write_table(pa.table({"ids": ids, "labels": labels}), folder / "rows.parquet", compression="zstd")
    Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(folder / "cache")).save_to_disk(
        folder / "datasets"
    )
    chunk = making._CHUNK  # noqa: SLF001 - rows lie as they do when they are made
    parts = (
        columns.parted(batches.Encoded(Ragged.of(ids[at : at + chunk]), labels[at : at + chunk], 0))
        for at in range(0, count, chunk)
    )
    making.write(folder / "rows.arrow", (pa.table(arrays) for arrays, _ in parts))
    return int(sizes.sum())


def alone(bench: str, way: str, *more: str) -> dict[str, float]:
    """What another process measured, which did nothing else."""
    asked = [sys.executable, bench, "--way", way, *more]
    done = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{way}: {found}", file=sys.stderr, flush=True)
    return found


def by_lists(folder: Path) -> dict[str, float]:
    def begin() -> Iterator[Batch]:
        read = pq.read_table(folder / "rows.parquet")
        ids, labels = read["ids"].to_pylist(), np.array(read["labels"].to_pylist())
        for rows in order([len(row) for row in ids]):
            tokens, mask = padded([ids[at] for at in rows])
            yield {"input_ids": tokens, "attention_mask": mask, "labels": torch.from_numpy(labels[rows])}

    return measured(begin)


def padded(ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of lists."""
    longest = max(map(len, ids))
    tokens = torch.full((len(ids), longest), 0, dtype=torch.long)
    mask = torch.zeros((len(ids), longest), dtype=torch.long)
    for at, row in enumerate(ids):
        tokens[at, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[at, : len(row)] = 1
    return tokens, mask


def by_rehone(folder: Path) -> dict[str, float]:
    shape = batches.Encoded(Ragged.of([]), np.zeros(0, np.int64), 0)
    with pa.OSFile(str(folder / "rows.arrow")) as file:
        reader = pa.ipc.open_file(file)
        size = sum(reader.get_batch(at).num_rows for at in range(reader.num_record_batches))

    def begin() -> Iterator[Batch]:
        data = Rows(Storage(str(folder)).root, "", "rows.arrow", size, shape).open()
        return (data.batch(rows) for rows in order(data.lengths))

    return measured(begin)


def by_datasets(folder: Path) -> dict[str, float]:
    """Hugging Face's: a mapped file too, in the loop's order."""
    import pyarrow.compute as pc
    from datasets import load_from_disk

    def begin() -> Iterator[Batch]:
        data = load_from_disk(str(folder / "datasets")).with_format("numpy")
        for rows in order(pc.list_value_length(data.data["ids"]).to_numpy()):
            batch = data[rows]
            tokens, mask = batches.padded(list(batch["ids"]), 0)
            yield {"input_ids": tokens, "attention_mask": mask, "labels": torch.from_numpy(batch["labels"])}

    return measured(begin)


def by_ray(folder: Path) -> dict[str, float]:
    """What one would write with Ray Data: rows shuffled in a buffer, each batch filled up to its longest row."""
    import ray.data
    from ray.data.collate_fn import NumpyBatchCollateFn

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with connect(Settings(storage=str(folder / "store")), num_cpus=2):
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            blocks = [pa.ipc.open_file(source).read_all()]
        data = ray.data.from_arrow(blocks)
        del blocks

        class Collate(NumpyBatchCollateFn):  # type: ignore[misc]  # Ray is untyped here
            def __call__(self, batch: Any) -> Batch:
                tokens, mask = batches.padded(list(batch["ids"]), 0)
                return {"input_ids": tokens, "attention_mask": mask, "labels": torch.from_numpy(batch["labels"].copy())}

        def begin() -> Iterator[Batch]:
            shuffled = {"local_shuffle_buffer_size": 16 * BATCH, "local_shuffle_seed": SEED}
            return iter(data.iter_torch_batches(batch_size=BATCH, collate_fn=Collate(), **shuffled))

        return measured(begin)


WORKERS: Mapping[str, Callable[[Path], dict[str, float]]] = {
    "lists": by_lists,
    "rehone": by_rehone,
    "datasets": by_datasets,
    "ray.data": by_ray,
}


def order(lengths: batches.Lengths) -> Iterator[Any]:
    return batches.steps(lengths, BATCH, SEED, begin=0, end=10 * BATCHES)


def measured(begin: Callable[[], Iterator[Batch]]) -> dict[str, float]:
    """Memory above what there was before, in MiB; seconds until the first batch; rows a second after it."""
    before, began = memory(), time.perf_counter()
    made = begin()
    next(made)
    first = time.perf_counter() - began
    began = time.perf_counter()
    rows = sum(len(next(made)["input_ids"]) for _ in range(BATCHES))
    rate, after = rows / (time.perf_counter() - began), memory()
    return {"rate": rate, "first": first} | {name: after[name] - before[name] for name in after}


def memory() -> dict[str, float]:
    """MiB of this process: its own, and what is in files and in memory that others may share."""
    info = psutil.Process().memory_info()
    return {"held": (info.rss - info.shared) / 2**20, "shared": info.shared / 2**20}


if __name__ == "__main__":
    prepare_environment()
    main()
