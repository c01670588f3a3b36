"""Checkpoints of trials that wait between two rungs, in the storage root beside the trials' records."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.store.storage import Storage

from .record import Kept, Trial


@dataclass(frozen=True)
class Paused:
    """One folder a trial and step, into which each of the trial's workers writes what is its own to write.

    It is whole when the trial's record says that it came so far, since that is written after it.
    """

    storage: Storage
    place: str

    @classmethod
    def beside(cls, kept: Kept) -> Paused:
        return cls(kept.storage, f"{kept.place}/paused")

    def write(self, trial: str, step: int, folder: Path) -> None:
        from jobs.training import checkpoint  # torch is behind it

        for file in checkpoint.parts(folder):
            self.storage.put(f"{self._folder(trial, step)}/{file.name}", file)

    @contextmanager
    def read(self, trial: str, step: int) -> Iterator[Path]:
        """The folder, as one of this machine inside the block."""
        place = self._folder(trial, step)
        with tempfile.TemporaryDirectory() as folder:
            for name in self.storage.list(place):
                self.storage.get(f"{place}/{name}", Path(folder, name))
            yield Path(folder)

    def holds(self, trial: Trial) -> bool:
        return self.storage.exists(self._folder(trial.id, trial.steps))

    def remove(self, trial: Trial) -> None:
        self.storage.remove(self._folder(trial.id, trial.steps))

    def clear(self) -> None:
        self.storage.remove(self.place)

    def _folder(self, trial: str, step: int) -> str:
        return f"{self.place}/{trial}-{step}"


@dataclass(frozen=True)
class Stretch:
    """What a trial trains in one go, as all of its workers know it."""

    trial: str
    until: int
    """Epochs, counted from the trial's beginning."""
    paused: Paused | None = None
    begin: int | None = None
    """The step of the checkpoint from which it goes on."""
    keeps: bool = False
    """Whether it leaves a checkpoint where it ends."""

    def resume(self) -> AbstractContextManager[Path] | None:
        return self.paused.read(self.trial, self.begin) if self.paused and self.begin is not None else None

    def reported(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Keep a worker's part of the checkpoint when it is that of the end."""
        if self.paused and self.keeps and folder is not None and metrics["epoch"] >= self.until:
            self.paused.write(self.trial, metrics["step"], folder)
