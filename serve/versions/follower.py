"""Follows the alias `champion`: loads a new champion beside the one that serves, then swaps the reference.

Follows `canary` too where it is asked to: that version is loaded beside the champion while the alias is set.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cluster.store.registry import CANARY, CHAMPION, PREVIOUS, ModelVersion
from serve.engines.engine import Engine
from serve.node import until_tick

log = logging.getLogger(__name__)


class Aliases(Protocol):
    """What the follower asks of the registry."""

    def find(self, model: str, alias: str) -> ModelVersion | None: ...

    def download(self, version: ModelVersion) -> Path: ...


class AliasFollower:
    """`engine` is what serves now, `canary` what is on trial beside it. No request waits for a swap: a batch that has
    begun ends on the old engine. `failed` says of versions why they could not be loaded.
    """

    def __init__(
        self, registry: Aliases, model: str, seconds: float, load: Callable[[ModelVersion, Path], Engine]
    ) -> None:
        self.engine: Engine | None = None
        self.canary: Engine | None = None
        self.failed: dict[int, str] = {}
        self._registry, self._model, self._seconds, self._load = registry, model, seconds, load
        self._refused: Callable[[ModelVersion, str], None] | None = None
        self._said: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the champion there is, or the one before it when it fails, then follow. Raises what loading raised."""
        self.look_first()
        self._thread = threading.Thread(target=self._run, name="alias-follower", daemon=True)
        self._thread.start()

    def follow_canary(self, refused: Callable[[ModelVersion, str], None]) -> None:
        """From now on. `refused` hears of a version that cannot be loaded, and why, once each time it is on trial."""
        self._refused = refused

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def look_first(self) -> None:
        """Load the champion there is, or the one before it when it fails. Raises what loading raised."""
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
        try:
            engine = self._loaded(wanted)
        except _LoadError as error:
            if self.engine is None:
                raise error.reason from None
            return
        self.engine = engine
        if _is(self.canary, wanted):
            self.canary = None

    def look_for_canary(self) -> None:
        """Load what is on trial now; it is gone when the alias is, or is the champion's. Raises as `look` does."""
        wanted = self._registry.find(self._model, CANARY)
        if wanted is None or _is(self.engine, wanted):
            self.canary = self._said = None
            return
        if _is(self.canary, wanted):
            return
        # Whatever was on trial before has no more part in it, be it that the next one does not load.
        self.canary = None
        if wanted.version not in self.failed:
            with suppress(_LoadError):
                self.canary = self._loaded(wanted)
        if wanted.version in self.failed and wanted.version != self._said and self._refused is not None:
            self._refused(wanted, self.failed[wanted.version])
            self._said = wanted.version

    def _loaded(self, wanted: ModelVersion) -> Engine:
        """Raises _LoadError, and what fetching the files raised."""
        if self.canary is not None and _is(self.canary, wanted):
            return replace(self.canary, version=wanted)
        folder = self._registry.download(wanted)
        try:
            return self._load(wanted, folder)
        except Exception as error:
            # Whatever is wrong with a version: it takes no traffic, and what serves goes on.
            self.failed[wanted.version] = str(error)
            log.exception("version %s of %s could not be loaded", wanted.version, self._model)
            raise _LoadError(error) from error

    def _run(self) -> None:
        while not self._ended.wait(until_tick(self._model, self._seconds, time.time())):
            self.follow()

    def follow(self) -> None:
        """Once: swap where an alias names another version. A registry that is away is logged."""
        self._try(self.look, CHAMPION)
        if self._refused is not None:
            self._try(self.look_for_canary, CANARY)

    def _try(self, look: Callable[[], None], alias: str) -> None:
        try:
            look()
        except Exception:
            # The registry can be away for a while; the engines that serve do not need it.
            log.exception("the registry could not be asked for the %s of %s", alias, self._model)


class _LoadError(Exception):
    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _is(engine: Engine | None, version: ModelVersion) -> bool:
    return engine is not None and engine.version.version == version.version
