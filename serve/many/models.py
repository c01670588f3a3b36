"""Which models a replica answers for: one, or as many as `adapters.py` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.errors import NotFoundError
from cluster.store.registry import ModelVersion
from serve.engines.engine import Engine
from serve.service import Service


@dataclass(frozen=True)
class Listed:
    """`engine` is None for a model that is loaded when it is asked for; `failed` are versions that were not loaded."""

    version: ModelVersion
    engine: Engine | None
    failed: Mapping[int, str]


class Models(Protocol):
    async def of(self, model: str) -> Service:
        """What answers for a model, loaded by then. Raises NotFoundError, NotReadyError."""

    async def listed(self) -> list[Listed]:
        """Raises NotReadyError."""

    def ready(self) -> None:
        """Raises NotReadyError until there is what the server was started for, ClusterError when that has died."""

    def fits(self, version: ModelVersion) -> bool:
        """Whether a version is of a model that could be answered for here."""

    def engines(self) -> list[Engine]:
        """All that are loaded."""

    def stop(self) -> None:
        """Follow the registry no more."""


class Follower(Protocol):
    """Who loads the versions of a model."""

    engine: Engine | None
    canary: Engine | None
    failed: dict[int, str]

    def stop(self) -> None: ...


class One:
    """The model of one service."""

    def __init__(self, service: Service, follower: Follower) -> None:
        self._service, self._follower = service, follower

    async def of(self, model: str) -> Service:
        if model != self._service.model:
            raise unknown(model, f"this is {self._service.model!r}")
        return self._service

    async def listed(self) -> list[Listed]:
        engine = self._service.engine()
        return [Listed(engine.version, engine, self._follower.failed)]

    def ready(self) -> None:
        self._service.engine().predictor.ready()

    def fits(self, version: ModelVersion) -> bool:
        return version.model == self._service.model

    def engines(self) -> list[Engine]:
        return loaded(self._follower)

    def stop(self) -> None:
        self._follower.stop()


def loaded(follower: Follower) -> list[Engine]:
    return [engine for engine in (follower.engine, follower.canary) if engine is not None]


def unknown(model: str, mend: str) -> NotFoundError:
    return NotFoundError(f"no model {model[:80]!r} is served here", mend=mend)
