"""What the replicas of one node do once for all of them: move spools, ask which version an alias names.

They meet in a folder of the node. Whoever comes first has its turn, and the others find the work done.
"""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cluster.store.registry import ModelVersion, Registry
from cluster.store.turn import turn


def until_tick(what: str, seconds: float, now: float) -> float:
    """Seconds to the next tick of something on this node: the same for all replicas, another on each node.

    Replicas that do it at once can share it; nodes that do not at once do not meet where they all go.
    """
    phase = zlib.crc32(f"{socket.gethostname()}:{what}".encode()) / 2**32
    return seconds - (now - phase * seconds) % seconds


class Aliases:
    """The registry's aliases, each asked for by one replica of the node every `seconds` and read by the others.

    `find` raises what the registry raises: each replica asks for itself while it is away.
    """

    def __init__(
        self, registry: Registry, folder: Path, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry, self._folder, self._seconds, self._clock = registry, folder, seconds, clock
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, model: str, alias: str) -> ModelVersion | None:
        path = self._folder / f"{model}.{alias}.json"
        with turn(self._folder):
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, json.JSONDecodeError):  # nobody asked yet, or was killed as it wrote
                kept = None
            # Half of it: replicas ask at the same ticks, and none may be told what it was told at the last.
            if kept is not None and 0 <= self._clock() - kept["at"] < self._seconds / 2:
                return _version(kept["version"])
            found = self._registry.find(model, alias)
            with suppress(OSError):  # a full disk: each replica asks for itself
                path.write_text(json.dumps({"at": self._clock(), "version": found and asdict(found)}), encoding="utf-8")
            return found

    def download(self, version: ModelVersion) -> Path:
        return self._registry.download(version)


def _version(tree: dict[str, object] | None) -> ModelVersion | None:
    if tree is None:
        return None
    aliases = tree["aliases"]
    assert isinstance(aliases, list)
    return ModelVersion(**{**tree, "aliases": tuple(aliases)})  # type: ignore[arg-type]  # as asdict gave it
