"""What is known of a sweep's trials, and a place in the storage root that keeps it, so that no point is tried twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.errors import TrainingError
from cluster.store.storage import Storage
from jobs.training.loop import Work

METRIC = "validation_loss"
DIVERGED, FAILED = "diverged", "failed"


@dataclass(frozen=True)
class Trial:
    """One point: the values it had, its best validation loss and accuracy, how far the scheduler let it go."""

    id: str
    """Of its values: the same point has the same id."""
    values: dict[str, Any]
    validation_loss: float | None
    validation_accuracy: float | None
    epochs: float
    status: str
    """`finished`, `stopped` by the scheduler before its end, or `failed`."""
    error: str = ""
    steps: int = 0
    losses: tuple[tuple[float, float], ...] = ()
    """(epochs, best validation loss so far) at each report."""

    def loss_after(self, epochs: float) -> float | None:
        """The best loss at the first report that is as far; None when there is none, or it was no number."""
        loss = next((loss for at, loss in self.losses if at >= epochs), None)
        return loss if loss is not None and math.isfinite(loss) else None


@dataclass(frozen=True)
class Importance:
    """The share of the loss's variance that each key explains; empty, and `note` says why, when that cannot be told."""

    shares: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0
    epochs: float = 0.0
    """When trials were compared: all of them had come so far."""
    note: str = ""


@dataclass(frozen=True)
class Swept:
    trials: tuple[Trial, ...]
    importance: Importance = field(default_factory=Importance)

    @property
    def best(self) -> Trial:
        """Raises TrainingError when every trial failed."""
        usable = [t for t in self.trials if t.validation_loss is not None]
        if not usable:
            raise TrainingError(f"all {len(self.trials)} trials failed: {self.trials[0].error}")
        return min(usable, key=lambda t: t.validation_loss or 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"best": asdict(self.best)} | asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Swept:
        """Back from what `to_dict` gave."""
        return cls(tuple(map(_read, tree["trials"])), Importance(**tree.get("importance", {})))


def key(job: Work) -> str:
    """Twelve hex digits of all that a trial's outcome hangs on beside its own point: model, recipe, rows, epochs.

    Not how many points are tried, how they are chosen or how many at a time: a larger sweep goes on from a smaller one.
    """
    spec = job.spec.model_dump(mode="json")
    sweep = {k: v for k, v in spec["sweep"].items() if k not in {"trials", "algorithm", "concurrent"}}
    told = {k: spec[k] for k in ("task", "base_model", "method", "training")}
    rest = {"sweep": sweep, "labels": job.labels, "weights": job.class_weights, "start": job.start}
    made = hashlib.sha256(json.dumps(told | rest, sort_keys=True).encode())
    for rows in (job.train, job.validation):
        made.update(rows.identity)
    return made.hexdigest()[:12]


@dataclass(frozen=True)
class Kept:
    """One file a trial, written when the trial ends: whatever is killed then, the trial need not run again."""

    storage: Storage
    place: str

    @classmethod
    def of(cls, job: Work, storage: Storage) -> Kept:
        return cls(storage, f"sweeps/{job.spec.name}/{key(job)}")

    def write(self, trial: Trial) -> None:
        self.storage.write_json(f"{self.place}/{trial.id}.json", asdict(trial))

    def trials(self) -> tuple[Trial, ...]:
        """Those with an outcome. One that failed has none and may be tried again, unless its training diverged."""
        names = [name for name in self.storage.list(self.place) if name.endswith(".json")]
        found = (_read(self.storage.read_json(f"{self.place}/{name}")) for name in names)
        return tuple(t for t in found if t.status != FAILED or t.error == DIVERGED)


def _read(tree: dict[str, Any]) -> Trial:
    return Trial(**{**tree, "losses": tuple((epochs, loss) for epochs, loss in tree.get("losses", ()))})
