"""Who answers while a version is on trial: the champion, or for a share of the traffic its canary.

Where the canary fails the champion answers in its place. In shadow mode the champion answers everything
(`shadow.py`). What either did goes to the observations, which `monitoring/judges/canary.py` judges.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from jobs.spec import CanarySpec

from .batching import Lane
from .dealing import route
from .engine import Answered
from .observer import Observer
from .predictions import Kind, Observation, Prediction
from .shadow import Count, Shadow, uncounted

log = logging.getLogger(__name__)


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

    def observed(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> list[Observation]:
        """What is to be kept beside a request's answers."""
        if answered.stand_in or not self._on("canary"):
            return []
        return self._observer.answers(made, answered, key, Kind.answer)

    def copy(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> None:
        """A shadow may have it too. Returns at once."""
        if self._on("shadow"):
            self.shadow.copy(made, answered, key)

    def refused(self, version: int, reason: str) -> None:
        """A canary could not be loaded: said once by each replica, so that its trial ends."""
        self._observer.refused(version, reason)

    def _on(self, mode: str) -> bool:
        return self._spec.mode == mode and self._canary.engine() is not None

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
