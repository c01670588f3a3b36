"""A canary in shadow mode answers copies that nobody sees or waits for, in a bounded part of the replica's time.

What is copied is a share of the champion's batches, each whole: a copy costs what its row cost the champion, and the
two answered the same rows in a batch of the same size, so that their times can be compared one by one (decision 23).
What either did goes to the observations, only where both answered, under one prediction id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.spec import CanarySpec
from serve.engines.batching import Lane
from serve.engines.engine import Answered
from serve.log.predictions import Kind, Prediction

from .dealing import route
from .observer import Observer

log = logging.getLogger(__name__)

Count = Callable[[str, Literal["copied", "dropped"], int], object]
"""Told of a model's inputs that went to its shadow, or did not."""

_GATHER = 0.02  # seconds in which all requests of a batch have been answered
_HELD = 10.0  # seconds whose part may be spent at once


def uncounted(_model: str, _what: Literal["copied", "dropped"], _inputs: int) -> None:
    pass


@dataclass
class Budget:
    """`share` of each second since `at` may be spent, and what the `_HELD` seconds before left of theirs.

    What a thing costs is known once it is done: the last one may overdraw, and whatever comes next waits for it.
    """

    share: float
    at: float
    left: float = 0.0

    def open(self, now: float) -> bool:
        self.left = min(self.share * _HELD, self.left + self.share * (now - self.at))
        self.at = now
        return self.left >= 0

    def spend(self, seconds: float) -> None:
        self.left -= seconds


@dataclass(frozen=True)
class _Copy:
    made: Sequence[Prediction]
    answered: Answered
    key: str | None

    @property
    def texts(self) -> list[str]:
        return [one.input for one in self.made]


class Shadow:
    """`copied`, `dropped`: inputs that the canary answered, and those for which it had no time or no room."""

    def __init__(
        self,
        spec: CanarySpec,
        canary: Lane,
        observer: Observer,
        count: Count = uncounted,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.copied = self.dropped = 0
        self._spec, self._canary, self._observer, self._count, self._clock = spec, canary, observer, count, clock
        self._budget, self._turn = Budget(spec.shadow_time, clock()), asyncio.Lock()
        self._waiting, self._batches = 0, dict[str, list[_Copy]]()
        self._tasks = set[asyncio.Task[None]]()

    def copy(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> None:
        """What the champion has answered goes to the canary too, if it is of the share. Returns at once."""
        if not route(answered.batch, self._spec.share):
            return
        if self._waiting + len(made) > self._spec.queue:
            self._drop(len(made))
            return
        self._waiting += len(made)
        batch = self._batches.setdefault(answered.batch, [])
        batch.append(_Copy(made, answered, key))
        if len(batch) == 1:
            # The event loop holds tasks by weak references only.
            task = asyncio.create_task(self._answer(answered.batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _answer(self, batch: str) -> None:
        await asyncio.sleep(_GATHER)
        copies = self._batches.pop(batch)
        rows = sum(len(one.made) for one in copies)
        try:
            async with self._turn:  # two batches in one would be a larger one than the champion's
                if self._budget.open(self._clock()):
                    await self._through(copies, rows)
                else:
                    self._drop(rows)
        finally:
            self._waiting -= rows

    async def _through(self, copies: Sequence[_Copy], rows: int) -> None:
        began = self._clock()
        try:
            theirs = await asyncio.wait_for(
                self._canary.answer([text for one in copies for text in one.texts]), self._spec.timeout_seconds
            )
        except Exception as error:
            log.exception("the shadow of %s failed", self._observer.model)
            for one in copies:
                self._observer.fault(self._canary.engine(), one.texts, one.key, Kind.shadow, error)
            return
        finally:
            self._budget.spend(self._clock() - began)
        outputs, version, seen = iter(theirs.outputs), theirs.engine.version.version, []
        for one in copies:
            shadows = [replace(made, version=version, label=next(outputs).label) for made in one.made]
            seen += self._observer.answers(one.made, one.answered, one.key, Kind.answer)
            seen += self._observer.answers(shadows, theirs, one.key, Kind.shadow)
        self._observer.write(seen)
        self.copied += rows
        self._count(self._observer.model, "copied", rows)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:  # a full disk: only what is on trial suffers
            log.error("a shadow of %s could not be written down", self._observer.model, exc_info=task.exception())

    def _drop(self, inputs: int) -> None:
        if not self.dropped:
            log.warning("no time or no room for all copies that the shadow of %s was to get", self._observer.model)
        self.dropped += inputs
        self._count(self._observer.model, "dropped", inputs)
