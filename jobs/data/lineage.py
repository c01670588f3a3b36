"""Where a dataset version comes from, what became of it and whether it is still what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.settings import Settings
from cluster.store.storage import Storage
from cluster.store.tracking import Tracker
from jobs import tasks

from . import dataset
from .compare import Shape, shape
from .dataset import DatasetVersion
from .split import SPLITS

_RUNS = 50


@dataclass(frozen=True)
class Lineage:
    """`shapes` by split; `ancestors` from the parent to the first; `runs` as `Tracker.runs` gives them."""

    version: DatasetVersion
    intact: bool
    shapes: Mapping[str, Shape]
    ancestors: tuple[DatasetVersion, ...]
    runs: tuple[Mapping[str, Any], ...]


def trace(reference: str, settings: Settings) -> Lineage:
    """Of the version that `NAME/VERSION` or the start of a version names. Raises NotFoundError."""
    storage = Storage.from_settings(settings)
    found = dataset.find(storage, reference)
    task = tasks.get(found.task)
    return Lineage(
        version=found,
        intact=found.intact(storage),
        shapes={split: shape(found.rows(storage, split), task) for split in SPLITS},
        ancestors=tuple(dataset.ancestors(storage, found)),
        runs=tuple(Tracker(settings, found.name).runs(limit=_RUNS, dataset=found.version)),
    )
