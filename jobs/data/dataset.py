"""A dataset version: immutable, named by a hash of its content, with a manifest that says where it came from."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from cluster.errors import DataError, NotFoundError
from cluster.store.storage import Storage
from cluster.store.tracking import Used
from jobs.targets import Targets

from .split import SPLITS

COLUMNS = ["input", "label", "group", "origin", "row"]
"""What every row has; the columns in `DatasetVersion.slices` come after them."""
OLD, NEW = "old", "new"


@dataclass(frozen=True)
class DatasetVersion:
    """The manifest. `sizes[split]` are rows, `counts[split][label]` those whose target has the label (none where labels
    are not listed); `origins` are in the order they were added.
    """

    name: str
    version: str
    source: str
    task: str
    labels: tuple[str, ...]
    slices: tuple[str, ...]
    sizes: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, int]
    origins: tuple[str, ...]
    parent: str | None
    rules: Mapping[str, Any]
    created: float
    """Unix seconds; not part of the content."""

    @property
    def place(self) -> str:
        return f"datasets/{self.name}/{self.version}"

    def file(self, split: str) -> str:
        """Where the rows of a split lie, as Parquet."""
        return f"{self.place}/{split}.parquet"

    def rows(self, storage: Storage, split: str) -> pd.DataFrame:
        """Rows of one split with the columns in COLUMNS and the slices (text, "" where a row has none)."""
        frame: pd.DataFrame = storage.read_parquet(self.file(split)).to_pandas()
        return frame

    def all_rows(self, storage: Storage) -> pd.DataFrame:
        """Rows of every split, with the column `split`."""
        return pd.concat([self.rows(storage, s).assign(split=s) for s in SPLITS], ignore_index=True)

    def used(self, storage: Storage) -> Used:
        """What a run keeps of the version that it used."""
        profile = {"rows": {split: self.size(split) for split in SPLITS}, "labels": list(self.labels)}
        return Used(self.name, self.version, storage.url(self.place), profile)

    def intact(self, storage: Storage) -> bool:
        """Whether what lies there is still what the version was named after."""
        splits = {split: self.rows(storage, split) for split in SPLITS}
        return _hash(splits, self.labels, self.rules) == self.version

    @property
    def listed(self) -> tuple[str, ...]:
        """The labels that are counted one by one."""
        return tuple(self.counts[SPLITS[0]])

    def size(self, split: str) -> int:
        return self.sizes[split]

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
    task: str,
    labels: list[str],
    targets: Targets,
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
        task=task,
        labels=tuple(labels),
        slices=tuple(slices),
        sizes={s: len(splits[s]) for s in SPLITS},
        counts={s: _counted(splits[s]["label"], labels if targets.LISTED else [], targets.parts) for s in SPLITS},
        dropped={str(k): int(v) for k, v in dropped["reason"].value_counts().sort_index().items()},
        origins=tuple(dict.fromkeys(origins)),
        parent=parent.version if parent else None,
        rules=dict(rules),
        created=time.time(),
    )
    if storage.exists(f"{made.place}/manifest.json"):
        return read(storage, name, made.version)
    for split in SPLITS:
        storage.write_parquet(made.file(split), _table(splits[split][columns]))
    storage.write_parquet(f"{made.place}/dropped.parquet", _table(dropped[["input", "label", "row", "reason"]]))
    # The manifest last: a version with a manifest is whole.
    storage.write_json(f"{made.place}/manifest.json", asdict(made))
    return made


def read(storage: Storage, name: str, version: str) -> DatasetVersion:
    """Raises NotFoundError."""
    tree = storage.read_json(f"datasets/{name}/{version}/manifest.json")
    return DatasetVersion(**tree | {key: tuple(tree[key]) for key in ("labels", "slices", "origins")})


def versions(storage: Storage, name: str | None = None) -> list[DatasetVersion]:
    """Every whole version of a project, or of all of them, by name and oldest first."""
    found = [
        read(storage, project, version)
        for project in ([name] if name else storage.list("datasets"))
        for version in storage.list(f"datasets/{project}")
        if storage.exists(f"datasets/{project}/{version}/manifest.json")
    ]
    return sorted(found, key=lambda v: (v.name, v.created))


def find(storage: Storage, reference: str) -> DatasetVersion:
    """A version by `NAME/VERSION`, its hash alone or the start of it. Raises NotFoundError."""
    name, _, start = reference.rpartition("/")
    found = [v for v in versions(storage, name or None) if v.version.startswith(start)]
    if len(found) == 1:
        return found[0]
    mend = f"say which: {', '.join(f'{v.name}/{v.version}' for v in found)}" if found else "see `rehone data list`"
    raise NotFoundError(
        f"is the start of {len(found)} dataset versions" if found else "is no dataset version",
        where=reference,
        mend=mend,
    )


def ancestors(storage: Storage, version: DatasetVersion) -> list[DatasetVersion]:
    """What the version was made from, what that was made from, and so on to the first."""
    if version.parent is None:
        return []
    parent = read(storage, version.name, version.parent)
    return [parent, *ancestors(storage, parent)]


def _counted(targets: pd.Series[str], labels: Sequence[str], parts: Callable[[str], Sequence[str]]) -> dict[str, int]:
    found = Counter(part for target in targets for part in set(parts(target)))
    return {label: found[label] for label in labels}


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(
        frame.astype({c: "int64" if c == "row" else "str" for c in frame.columns}), preserve_index=False
    )


def _hash(splits: Mapping[str, pd.DataFrame], labels: Sequence[str], rules: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([list(labels), dict(rules)], sort_keys=True).encode())
    for split in SPLITS:
        for row in splits[split].itertuples(index=False):
            digest.update(json.dumps([split, *map(str, row)]).encode())
    return digest.hexdigest()[:12]


def check_not_empty(rows: pd.DataFrame, dropped: pd.DataFrame, source: str) -> None:
    """Raises DataError when cleaning left nothing."""
    if rows.empty:
        why = ", ".join(f"{n} {reason}" for reason, n in dropped["reason"].value_counts().items())
        raise DataError(f"nothing is left after cleaning: {why}", where=source)
