"""Who answers while a version is on trial: the champion, or for a share of the traffic its canary.

Where the canary fails the champion answers in its place. In shadow mode the canary answers copies that nobody sees and
nobody waits for, and none when too many wait already. What either did goes to the observations, which
`monitoring/judges/canary.py` judges; in shadow mode only where both answered, under one prediction id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from secrets import token_hex

from jobs.spec import CanarySpec

from .engine import Answer, Answered, Engine
from .predictions import Kind, Observation, Prediction, Record, new_id, utc_now

log = logging.getLogger(__name__)


def route(key: str, share: float) -> bool:
    """Whether the canary answers a key: always the same way, and with a larger share for these keys and some more."""
    return int(_hash(key), 16) / 2**64 < share


def _hash(key: str) -> str:
    # Not Python's hash, which differs from one process to the next.
    return blake2b(key.encode(errors="surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Lane:
    """One version's way: the engine that is loaded, if any, and what sends inputs through it."""

    engine: Callable[[], Engine | None]
    answer: Answer


class Traffic:
    """`write` keeps records; it may raise OSError. `copied`, `dropped`: inputs that went to the shadow, or did not."""

    def __init__(
        self, model: str, spec: CanarySpec, champion: Lane, canary: Lane, write: Callable[[Sequence[Record]], None]
    ) -> None:
        self.copied = self.dropped = 0
        self._model, self._spec, self._champion, self._canary, self._write = model, spec, champion, canary, write
        self._waiting, self._tasks = 0, set[asyncio.Task[None]]()

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
            self._fault(self._champion, texts, key, Kind.answer, error)
            raise

    def observed(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> list[Observation]:
        """What is to be kept beside a request's answers."""
        if answered.stand_in or not self._on("canary"):
            return []
        return self._observations(made, answered, key, Kind.answer)

    def copy(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> None:
        """Send a share's inputs to the shadow too, in the background, and return at once."""
        texts = [one.input for one in made]
        if not self._on("shadow") or not route(_of_request(texts, key), self._spec.share):
            return
        if self._waiting + len(made) > self._spec.queue:
            self._drop(len(made))
            return
        self._waiting += len(made)
        # The event loop holds tasks by weak references only.
        task = asyncio.create_task(self._shadow(made, answered, key))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def refused(self, version: int, reason: str) -> None:
        """A canary could not be loaded: said once by each replica, so that its trial ends."""
        self._write([self._observation(version, "", Kind.load, fault=reason)])

    def _on(self, mode: str) -> bool:
        return self._spec.mode == mode and self._canary.engine() is not None

    async def _tried(self, texts: Sequence[str], key: str | None) -> Answered:
        try:
            return await self._from_canary(texts)
        except Exception as error:
            log.exception("the canary of %s failed; the champion answers in its place", self._model)
            self._fault(self._canary, texts, key, Kind.answer, error)
        return replace(await self._champion.answer(texts), stand_in=True)

    async def _from_canary(self, texts: Sequence[str]) -> Answered:
        return await asyncio.wait_for(self._canary.answer(texts), self._spec.timeout_seconds)

    async def _shadow(self, made: Sequence[Prediction], answered: Answered, key: str | None) -> None:
        texts = [one.input for one in made]
        try:
            theirs = await self._from_canary(texts)
        except Exception as error:
            log.exception("the shadow of %s failed", self._model)
            self._fault(self._canary, texts, key, Kind.shadow, error)
            return
        finally:
            self._waiting -= len(made)
        copies = [
            replace(one, version=theirs.engine.version.version, label=output.label)
            for one, output in zip(made, theirs.outputs, strict=True)
        ]
        pairs = [(made, answered, Kind.answer), (copies, theirs, Kind.shadow)]
        self._write([row for rows, by, kind in pairs for row in self._observations(rows, by, key, kind)])
        self.copied += len(made)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:  # a full disk: only what is on trial suffers
            log.error("a shadow of %s could not be written down", self._model, exc_info=task.exception())

    def _drop(self, inputs: int) -> None:
        if not self.dropped:
            log.warning("more than %d inputs wait for the shadow of %s: no copies", self._spec.queue, self._model)
        self.dropped += inputs

    def _observations(
        self, made: Sequence[Prediction], answered: Answered, key: str | None, kind: Kind
    ) -> list[Observation]:
        return [
            Observation(
                prediction_id=one.prediction_id,
                at=one.at,
                model=self._model,
                version=one.version,
                kind=kind,
                key=_hash(one.input if key is None else key),
                label=one.label,
                fault=None,
                batch=answered.batch,
                batch_rows=answered.batch_rows,
                seconds=answered.seconds,
            )
            for one in made
        ]

    def _fault(self, lane: Lane, texts: Sequence[str], key: str | None, kind: Kind, error: Exception) -> None:
        engine = lane.engine()
        if engine is None:  # its trial ended while the request was on its way
            return
        # Of all requests of one batch Serve fails each with the same exception: they are one fault.
        batch = str(vars(error).setdefault("batch", token_hex(8)))
        said = f"{type(error).__name__}: {error}"[:200]
        self._write(
            [
                self._observation(
                    engine.version.version, text if key is None else key, kind, fault=said, batch=batch, rows=len(texts)
                )
                for text in texts
            ]
        )

    def _observation(
        self, version: int, key: str, kind: Kind, *, fault: str, batch: str = "", rows: int = 0
    ) -> Observation:
        """Of what did not come to an answer, under an id of its own."""
        return Observation(
            prediction_id=new_id(self._model, version),
            at=utc_now(),
            model=self._model,
            version=version,
            kind=kind,
            key=_hash(key),
            label=None,
            fault=fault,
            batch=batch,
            batch_rows=rows,
            seconds=None,
        )


def _of_request(texts: Sequence[str], key: str | None) -> str:
    """A request has one answer's version: its texts go one way together."""
    return "\0".join(texts) if key is None else key
