"""Rows are made into numbers once: they lie beside their dataset version, in a file named after what went in.

That is the rows themselves, the tokenizer with its chat template, the task and its bounds. Who trains on them maps the
file and reads the rows of its batch, so that no process holds the tokens of all. The columns of what a task makes are
in the file; what is the same for all rows travels with the file's name. Files are Arrow's: a pickle would run whatever
its writer wrote.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cluster.console import say
from cluster.store.storage import Storage
from jobs.spec import Spec
from jobs.tasks.task import Encoded

from . import columns, making

_FORMAT = 2  # of the files, and of what tasks make of rows
_PATHS = {"name_or_path", "tokenizer_file"}  # where a tokenizer lies is no part of it


@dataclass(frozen=True)
class Rows:
    """Rows in a `file` under the storage root, as plain values that travel to a worker in place of the rows.

    `source`: the Parquet file there with the rows themselves. `shape`: what the task makes of no rows. `chosen`: which
    rows of the file these are, all of them when None.
    """

    root: str
    source: str
    file: str
    size: int
    shape: Encoded
    chosen: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.size if self.chosen is None else len(self.chosen)

    @property
    def identity(self) -> bytes:
        """Of the rows and their order, wherever they are kept."""
        name = Path(self.file).stem.encode()
        return name if self.chosen is None else name + hashlib.sha256(self.chosen.tobytes()).digest()

    def only(self, rows: ArrayLike) -> Rows:
        """These rows in this order, some of them more than once."""
        wanted = np.asarray(rows, np.int64)
        if np.array_equal(wanted, np.arange(len(self))):
            return self
        return replace(self, chosen=wanted if self.chosen is None else self.chosen[wanted])

    def under(self, spec: Spec, labels: Sequence[str]) -> Rows:
        """The same rows as another spec wants them."""
        storage = Storage(self.root)
        (made,) = kept(storage, {self.source: storage.read_parquet(self.source).to_pandas()}, spec, labels)
        return replace(made, chosen=self.chosen)

    def open(self) -> Encoded:
        """Maps the file, which is fetched first where the storage root is on no disk here."""
        with pa.memory_map(str(Storage(self.root).on_disk(self.file))) as source:
            reader = pa.ipc.open_file(source)
            parts = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        found: Encoded = columns.joined(self.shape, parts, self.chosen)
        return found


def kept(storage: Storage, frames: Mapping[str, pd.DataFrame], spec: Spec, labels: Sequence[str]) -> list[Rows]:
    """The rows (`input, label`; one at least) of each source. They are made now unless they were before."""
    began, known = time.monotonic(), True
    maker, found = making.Maker(spec, labels), []
    for source, rows in frames.items():
        file = f"{source.rpartition('/')[0]}/tokens/{_named(maker.processor, rows, spec, labels)}.arrow"
        if not storage.exists(file):
            known = False
            with storage.made(file) as path:
                making.write(path, making.made(rows, spec, labels, maker))
        _, shape = maker.of(rows.head(1))
        found.append(Rows(storage.root, source, file, len(rows), shape))
    how = "kept from before" if known else f"made in {time.monotonic() - began:.1f} s"
    say(f"tokens of {sum(map(len, frames.values()))} rows: {how}")
    return found


def _named(processor: Any, rows: pd.DataFrame, spec: Spec, labels: Sequence[str]) -> str:
    parts = [_FORMAT, spec.task, list(labels), vars(spec.bounds), *_words(processor)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for row in zip(rows["input"], rows["label"], strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:24]


def _words(processor: Any) -> list[Any]:
    """All that decides which tokens a text becomes; nothing where a processor has to do with no texts."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "get_vocab"):
        return []
    told = [type(tokenizer).__name__, tokenizer.chat_template, tokenizer.pad_token_id, tokenizer.eos_token_id]
    if not hasattr(tokenizer, "backend_tokenizer"):
        options = {name: str(value) for name, value in tokenizer.init_kwargs.items() if name not in _PATHS}
        return [*told, tokenizer.get_vocab(), options]
    # How the last call cut and filled up is a part of a tokenizer, and says nothing of the next.
    return [*told, json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}]
