"""Follows the alias `champion`: loads a new champion beside the one that serves, then swaps the reference."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cluster.registry import CHAMPION, PREVIOUS, ModelVersion

from .engine import Engine

log = logging.getLogger(__name__)


class Aliases(Protocol):
    """What the follower asks of the registry."""

    def find(self, model: str, alias: str) -> ModelVersion | None: ...

    def download(self, version: ModelVersion) -> Path: ...


class AliasFollower:
    """`engine` is what serves now. No request waits for a swap: a batch that has begun ends on the old engine."""

    def __init__(
        self, registry: Aliases, model: str, seconds: float, load: Callable[[ModelVersion, Path], Engine]
    ) -> None:
        self.engine: Engine | None = None
        self.failed: dict[int, str] = {}
        self._registry, self._model, self._seconds, self._load = registry, model, seconds, load
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alias-follower", daemon=True)

    def start(self) -> None:
        """Load the champion there is, or the one before it when it fails, then follow. Raises what loading raised."""
        self._look_first()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look_first(self) -> None:
        try:
            self.look(CHAMPION)
        except Exception:
            # A replica that restarts under a champion that is broken: the version before it has served already.
            if self._registry.find(self._model, PREVIOUS) is None:
                raise
            self.look(PREVIOUS)

    def look(self, alias: str = CHAMPION) -> None:
        """Swap if the alias names another version than the one that serves. Raises the registry's own faults."""
        wanted = self._registry.find(self._model, alias)
        now = self.engine.version.version if self.engine else None
        if wanted is None or wanted.version == now or wanted.version in self.failed:
            return
        folder = self._registry.download(wanted)
        try:
            engine = self._load(wanted, folder)
        except Exception as error:
            # Whatever is wrong with a version: it takes no traffic, and what serves goes on.
            self.failed[wanted.version] = str(error)
            log.exception("version %s of %s could not be loaded", wanted.version, self._model)
            if self.engine is None:
                raise
            return
        self.engine = engine

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self.look()
            except Exception:
                # The registry can be away for a while; the engine that serves does not need it.
                log.exception("the registry could not be asked for the champion of %s", self._model)
