"""Rows are tokenised once: what comes out is kept beside their dataset version, under a name made of what went in.

That is the rows themselves, the tokenizer with its chat template, the task and its bounds. What is opened when its
batch is made, as pictures and recordings are, is not kept. Files are Parquet: a pickle would run whatever its writer
wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cluster.storage import Storage

from . import tasks
from .batches import Encoded as Rows
from .tasks.preference_tuning import Preferred
from .tasks.sentence_similarity import Pairs
from .tasks.task import Bounds, Encoded
from .tasks.token_classification import Tokens, Words
from .tasks.writing import Sequences

_FORMAT = 1  # of the files, and of what tasks make of rows
_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in (Rows, Sequences, Pairs, Preferred, Tokens)}
_ITEMS: Mapping[tuple[str, str], Any] = {("Tokens", "rows"): Words}
"""Fields whose items are objects."""


@dataclass(frozen=True)
class Shelf:
    """Where tokens are kept, as plain values that travel to a worker: the storage root, and a place in it."""

    root: str
    place: str


def encoded(
    shelf: Shelf | None, name: str, processor: Any, rows: pd.DataFrame, labels: Sequence[str], bounds: Bounds
) -> tuple[Encoded, bool]:
    """The rows of a frame (`input, label`) as the task of this name takes them, and whether they were kept already."""
    task = tasks.get(name)
    file = None
    if shelf is not None and hasattr(processor, "backend_tokenizer"):
        file = f"{shelf.place}/{_named(name, processor, rows, labels, bounds)}.parquet"
        storage = Storage(shelf.root)
        if storage.exists(file):
            return _from(storage.read_parquet(file)), True
    made = task.encode(processor, list(rows["input"]), list(rows["label"]), labels, bounds)
    if file is not None and type(made).__name__ in _KINDS:
        # Workers that come at the same time write the same.
        storage.create(file, _bytes(_table(made)))
    return made, False


def _named(name: str, processor: Any, rows: pd.DataFrame, labels: Sequence[str], bounds: Bounds) -> str:
    # How the last call cut and filled up is a part of a tokenizer, and says nothing of the next.
    tokenizer = json.loads(processor.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    parts = [_FORMAT, name, list(labels), vars(bounds), type(processor).__name__, processor.chat_template]
    parts += [processor.pad_token_id, processor.eos_token_id, tokenizer]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for row in zip(rows["input"], rows["label"], strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:24]


def _table(made: Any) -> pa.Table:
    columns, plain = _columns(made, "")
    return pa.table(columns).replace_schema_metadata({"tokens": json.dumps(plain)})


def _bytes(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _columns(made: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What has a value a row, and what has one for all; of an object inside, with the name of its field in front."""
    columns: dict[str, Any] = {}
    plain: dict[str, Any] = {f"{prefix}kind": type(made).__name__}
    for field in fields(made):
        value, key = getattr(made, field.name), prefix + field.name
        if isinstance(value, np.ndarray):
            columns[key] = pa.array(value.tolist())
            plain[key] = str(value.dtype)
        elif isinstance(value, list):
            columns[key] = pa.array([vars(item) if is_dataclass(item) else item for item in value])
        elif is_dataclass(value):
            inside, more = _columns(value, f"{key}.")
            columns, plain = columns | inside, plain | more
        else:
            plain[key] = value
    return columns, plain


def _from(table: pa.Table) -> Encoded:
    plain = json.loads(table.schema.metadata[b"tokens"])
    found: Encoded = _object({name: table[name] for name in table.column_names}, plain, "")
    return found


def _object(columns: Mapping[str, Any], plain: Mapping[str, Any], prefix: str) -> Any:
    kind = plain[f"{prefix}kind"]
    values: dict[str, Any] = {}
    for field in fields(_KINDS[kind]):
        key = prefix + field.name
        if key in columns:
            items = columns[key].to_pylist()
            item = _ITEMS.get((kind, field.name))
            values[field.name] = [item(**one) for one in items] if item else items
            if key in plain:
                values[field.name] = np.array(items, dtype=plain[key])
        elif f"{key}.kind" in plain:
            values[field.name] = _object(columns, plain, f"{key}.")
        else:
            values[field.name] = plain[key]
    return _KINDS[kind](**values)
