"""Who answers while a version is on trial: the champion, or for a share of the traffic its canary.

Where the canary fails the champion answers in its place; of a text that is sent as it is written, until the first piece
is there. In shadow mode the champion answers everything
(`shadow.py`). What either did goes to the observations, which `monitoring/judges/canary.py` judges.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex

from jobs.spec import CanarySpec
from jobs.tasks.task import Piece
from serve.engines.batching import Lane
from serve.engines.engine import Answered, Engine
from serve.log.predictions import Kind, Observation, Prediction

from .dealing import route
from .observer import Observer
from .shadow import Count, Shadow, uncounted

log = logging.getLogger(__name__)

Write = Callable[[Engine], AsyncIterator[Piece]]
"""Has an engine write a text."""


@dataclass(frozen=True)
class Part:
    """A piece of a text and who writes that. `stand_in`: the canary was to, and could not."""

    engine: Engine
    piece: Piece
    stand_in: bool = False


class Traffic:
    """Of one model, as its spec has it."""

    def __init__(
        self, spec: CanarySpec, champion: Lane, canary: Lane, observer: Observer, count: Count = uncounted
    ) -> None:
        self.shadow = Shadow(spec, canary, observer, count)
        self._spec, self._champion, self._canary, self._observer = spec, champion, canary, observer

    async def answer(self, texts: Sequence[str], key: str | None) -> Answered:
        """All texts of a request through one engine. Raises what the champion raised."""
        if not self._on("canary"):
            return await self._champion.answer(texts)
        if route(_of_request(texts, key), self._spec.share):
            return await self._tried(texts, key)
        try:
            return await self._champion.answer(texts)
        except Exception as error:
            # Counted like a canary's: an input that nobody can read is not the canary's fault.
            self._observer.fault(self._champion.engine(), texts, key, Kind.answer, error)
            raise

    async def write(
        self, champion: Engine, given: str, key: str | None, write: Write, whole: bool
    ) -> AsyncIterator[Part]:
        """The text, all of it by one engine. `whole`: nobody sees a piece before the last one is there.

        Raises what the champion raised, and the canary after its first piece.
        """
        canary = self._canary.engine() if self._on("canary") else None
        engine, begun, stand_in = champion, None, False
        if canary is not None and route(_of_request([given], key), self._spec.share):
            begun = await self._begun(canary, given, key, write, whole)
            engine, stand_in = (champion, True) if begun is None else (canary, False)
        try:
            async for piece in begun or write(champion):
                yield Part(engine, piece, stand_in)
        except Exception as error:
            if canary is not None and not stand_in:
                self._observer.fault(engine, [given], key, Kind.answer, error)
            raise

    def observed(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> list[Observation]:
        """What is to be kept beside a request's answers."""
        if answered.stand_in or not self._on("canary"):
            return []
        return self._observer.answers(made, answered, key, Kind.answer)

    def wrote(self, made: Prediction, part: Part, key: str | None) -> list[Observation]:
        """The same of a text, which has no time: how long it takes says more of its length, and of who reads it, than
        of a version.
        """
        alone = Answered(part.engine, [], token_hex(8), 1, None, part.stand_in)
        return self.observed([made], alone, key)

    def copy(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> None:
        """A shadow may have it too. Returns at once."""
        if self._on("shadow"):
            self.shadow.copy(made, answered, key)

    def refused(self, version: int, reason: str) -> None:
        """A canary could not be loaded: said once by each replica, so that its trial ends."""
        self._observer.refused(version, reason)

    def _on(self, mode: str) -> bool:
        return self._spec.mode == mode and self._canary.engine() is not None

    async def _begun(
        self, canary: Engine, given: str, key: str | None, write: Write, whole: bool
    ) -> AsyncIterator[Piece] | None:
        """The canary's pieces, when the first of them is there, or all; None where it failed by then."""
        pieces = write(canary)
        try:
            held = await asyncio.wait_for(_held(pieces, whole), self._spec.timeout_seconds)
        except Exception as error:
            log.exception("the canary of %s failed; the champion writes in its place", self._observer.model)
            self._observer.fault(canary, [given], key, Kind.answer, error)
            return None
        return _joined(held, pieces)

    async def _tried(self, texts: Sequence[str], key: str | None) -> Answered:
        try:
            return await asyncio.wait_for(self._canary.answer(texts), self._spec.timeout_seconds)
        except Exception as error:
            log.exception("the canary of %s failed; the champion answers in its place", self._observer.model)
            self._observer.fault(self._canary.engine(), texts, key, Kind.answer, error)
        return replace(await self._champion.answer(texts), stand_in=True)


def _of_request(texts: Sequence[str], key: str | None) -> str:
    """A request has one answer's version: its texts go one way together."""
    return "\0".join(texts) if key is None else key


async def _held(pieces: AsyncIterator[Piece], whole: bool) -> list[Piece]:
    held = []
    async for piece in pieces:
        held.append(piece)
        if not whole:
            break
    return held


async def _joined(held: Sequence[Piece], rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    for piece in held:
        yield piece
    async for piece in rest:
        yield piece
