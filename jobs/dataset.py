"""A dataset version: immutable, named by a hash of its content, with a manifest that says where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from cluster.errors import DataError
from cluster.storage import Storage

from .split import SPLITS

COLUMNS = ["text", "label", "group", "origin", "row"]
"""What every row has; the columns in `DatasetVersion.slices` come after them."""
OLD, NEW = "old", "new"


@dataclass(frozen=True)
class DatasetVersion:
    """The manifest. `counts[split][label]` are rows; `origins` are in the order they were added."""

    name: str
    version: str
    source: str
    labels: tuple[str, ...]
    slices: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, int]
    origins: tuple[str, ...]
    parent: str | None
    rules: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"datasets/{self.name}/{self.version}"

    def rows(self, storage: Storage, split: str) -> pd.DataFrame:
        """Rows of one split with the columns in COLUMNS and the slices (text, "" where a row has none)."""
        frame: pd.DataFrame = storage.read_parquet(f"{self.place}/{split}.parquet").to_pandas()
        return frame

    def size(self, split: str) -> int:
        return sum(self.counts[split].values())

    def part(self, rows: pd.DataFrame, which: str) -> pd.DataFrame:
        """`new`: rows of the origin added last; `old`: all the others (everything, when only one was ever added)."""
        newest = rows["origin"] == self.origins[-1]
        if len(self.origins) == 1:
            newest = newest & False
        return rows[newest if which == NEW else ~newest]


def write(
    storage: Storage,
    name: str,
    splits: Mapping[str, pd.DataFrame],
    dropped: pd.DataFrame,
    *,
    source: str,
    labels: list[str],
    rules: Mapping[str, Any],
    slices: Sequence[str] = (),
    parent: DatasetVersion | None = None,
) -> DatasetVersion:
    """Store the splits under a version made from their content; the same content is stored once."""
    columns = [*COLUMNS, *slices]
    origins = list(parent.origins) if parent else []
    origins += [o for split in SPLITS for o in splits[split]["origin"].unique() if o not in origins]
    made = DatasetVersion(
        name=name,
        version=_hash({name: rows[columns] for name, rows in splits.items()}, labels, rules),
        source=source,
        labels=tuple(labels),
        slices=tuple(slices),
        counts={s: {label: int((splits[s]["label"] == label).sum()) for label in labels} for s in SPLITS},
        dropped={str(k): int(v) for k, v in dropped["reason"].value_counts().sort_index().items()},
        origins=tuple(dict.fromkeys(origins)),
        parent=parent.version if parent else None,
        rules=dict(rules),
    )
    if not storage.exists(f"{made.place}/manifest.json"):
        for split in SPLITS:
            storage.write_parquet(f"{made.place}/{split}.parquet", _table(splits[split][columns]))
        storage.write_parquet(f"{made.place}/dropped.parquet", _table(dropped[["text", "label", "row", "reason"]]))
        # The manifest last: a version with a manifest is whole.
        storage.write_json(f"{made.place}/manifest.json", asdict(made))
    return made


def read(storage: Storage, name: str, version: str) -> DatasetVersion:
    """Raises NotFoundError."""
    tree = storage.read_json(f"datasets/{name}/{version}/manifest.json")
    return DatasetVersion(**tree | {key: tuple(tree[key]) for key in ("labels", "slices", "origins")})


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(
        frame.astype({c: "int64" if c == "row" else "str" for c in frame.columns}), preserve_index=False
    )


def _hash(splits: Mapping[str, pd.DataFrame], labels: list[str], rules: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([labels, rules], sort_keys=True).encode())
    for split in SPLITS:
        for row in splits[split].itertuples(index=False):
            digest.update(json.dumps([split, *map(str, row)]).encode())
    return digest.hexdigest()[:12]


def check_not_empty(rows: pd.DataFrame, dropped: pd.DataFrame, source: str) -> None:
    """Raises DataError when cleaning left nothing."""
    if rows.empty:
        why = ", ".join(f"{n} {reason}" for reason, n in dropped["reason"].value_counts().items())
        raise DataError(f"nothing is left after cleaning: {why}", where=source)
