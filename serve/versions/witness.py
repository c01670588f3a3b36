"""A replica answers as a version that is to be promoted: it loads it beside what serves, as it would for a swap.

One version at a time, on a thread: requests go on. The version is let go afterwards; what was compiled of it is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cluster.errors import NotFoundError, RehoneError
from cluster.store.registry import ModelVersion
from serve.engines import choice, parity
from serve.engines.engine import Engine
from serve.many.models import unknown

from .tickets import Tickets, path


class Versions(Protocol):
    """What a witness asks of the registry."""

    def get(self, model: str, version: int) -> ModelVersion: ...

    def download(self, version: ModelVersion) -> Path: ...


class RefusedError(RehoneError):
    """The version cannot be loaded, or disagrees with its trainer."""


class Witness:
    """`serving` gives the engines that are loaded already, `kept` is the node's folder of compiled models.

    `fits` says of which versions it could answer for the model.
    """

    def __init__(
        self,
        versions: Versions,
        load: Callable[[ModelVersion, Path], Engine],
        kept: Path,
        fits: Callable[[ModelVersion], bool],
        serving: Callable[[], Sequence[Engine]] = tuple,
    ) -> None:
        self._versions, self._load, self._kept, self._fits, self._serving = versions, load, kept, fits, serving

    def answer(self, model: str, number: int) -> dict[str, Any]:
        """`{"engine", "answers": [[label, [probability]]], "engines"}`.

        Raises RefusedError, NotFoundError where the model is not served here, and the registry's faults.
        """
        version = self._versions.get(model, number)
        if not self._fits(version):
            raise unknown(model, "end its server's record, or serve it")
        folder = self._versions.download(version)
        engine = self._loaded(version) or self._admitted(version, folder)
        outputs = engine.answer(parity.golden(folder).inputs).outputs
        return {
            "engine": engine.predictor.engine,
            "answers": [[output.label, list(output.scores.values())] for output in outputs],
            "engines": [asdict(one) for one in choice.measured(self._kept, folder)],
        }

    def _loaded(self, version: ModelVersion) -> Engine | None:
        wanted = (version.model, version.version)
        return next((one for one in self._serving() if (one.version.model, one.version.version) == wanted), None)

    def _admitted(self, version: ModelVersion, folder: Path) -> Engine:
        try:
            return self._load(version, folder)
        except Exception as error:
            # Whatever is wrong with a version, as for a swap: it is the version's fault.
            raise RefusedError(str(error) or type(error).__name__) from error


def router(witness: Witness, tickets: Tickets) -> APIRouter:
    """The route that a promotion asks, in no documentation: 403 without a ticket, 409 for a version that is refused."""
    routes, busy = APIRouter(), asyncio.Lock()

    @routes.post(path("{model}"), include_in_schema=False)
    async def answer(model: str, request: Request) -> JSONResponse:
        ticket = request.headers.get("authorization", "").removeprefix("Bearer ")
        version = await asyncio.to_thread(tickets.version, model, ticket, time.time())
        if version is None:
            return JSONResponse({"detail": "this route is for promotions, by a ticket"}, 403)
        if busy.locked():
            return JSONResponse({"detail": "another version is being loaded"}, 429, {"Retry-After": "2"})
        async with busy:
            try:
                return JSONResponse(await asyncio.to_thread(witness.answer, model, version))
            except RefusedError as error:
                return JSONResponse({"detail": str(error)}, 409)
            except NotFoundError as error:
                return JSONResponse({"detail": str(error)}, 404)

    return routes
