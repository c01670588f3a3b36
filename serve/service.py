"""What a request does, without HTTP: answer, write down, take labels back."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cluster.errors import NotFoundError, RehoneError, UserError
from jobs.explain.explanation import Explanation
from jobs.tasks.task import Piece, Sampling
from serve.engines.engine import Answer, Engine
from serve.log.predictions import Feedback, Prediction, Record, new_id, parse_id, utc_now
from serve.log.spool import Spool
from serve.versions.traffic import Part, Traffic

from .tracing import UNTRACED, Trace

_TEXTS = 256  # that wait for their next token at once, each on a thread; there are only as many as are asked for


class NotReadyError(RehoneError):
    """No version is loaded yet."""


@dataclass(frozen=True)
class Explained:
    """All explanations of one request, from one version."""

    version: int
    explanations: list[Explanation]


@dataclass(frozen=True)
class Embedded:
    """An embedding of each text, (hidden,), and how many tokens were read of all of them."""

    vectors: list[NDArray[np.float32]]
    read: int


@dataclass(frozen=True)
class Written:
    """A part of the answer that gets this prediction id."""

    prediction_id: str
    version: int
    piece: Piece


class Service:
    """`engine` gives the engine that serves now, or None; `answer` sends texts through it, batched with others'.

    `take` makes of each input what the model reads and the log keeps, as it was in training; ValueError when it cannot.
    `traffic`, where a canary may come, says who answers instead.
    """

    def __init__(
        self,
        model: str,
        spool: Spool,
        engine: Callable[[], Engine | None],
        answer: Answer,
        take: Callable[[str], str],
        explain_steps: int,
        traffic: Traffic | None = None,
        trace: Trace = UNTRACED,
    ) -> None:
        self.model, self.traffic, self._trace = model, traffic, trace
        self._steps, self._explaining = explain_steps, asyncio.Lock()
        self._writing = ThreadPoolExecutor(_TEXTS, "texts")
        self._spool, self._engine, self._answer, self._take = spool, engine, answer, take

    def engine(self) -> Engine:
        """Raises NotReadyError."""
        engine = self._engine()
        if engine is None:
            raise NotReadyError("no version of this model is loaded yet", where=self.model, mend="try again shortly")
        return engine

    async def predict(self, model: str, texts: Sequence[str], key: str | None = None) -> list[Prediction]:
        """One Prediction a text, all of one version, each in the spool by then.

        Requests with the same `key` are answered by the same version while nothing else changes; without one, requests
        with the same texts. Raises UserError, NotFoundError, NotReadyError, OSError.
        """
        self._require(model)
        self.engine()
        texts = self._taken(texts)
        traffic = self.traffic
        answered = await (self._answer(texts) if traffic is None else traffic.answer(texts, key))
        version, now = answered.engine.version.version, utc_now()
        made = [
            Prediction(new_id(model, version), now, model, version, text, o.label, o.confidence, o.scores, o.embedding)
            for text, o in zip(texts, answered.outputs, strict=True)
        ]
        if traffic is None:
            self._append(made)
        else:
            self._append([*made, *traffic.observed(made, answered, key)])
            traffic.copy(made, answered, key)
        return made

    async def write(
        self, model: str, given: str, sampling: Sampling, key: str | None = None, *, whole: bool = False
    ) -> AsyncIterator[Written]:
        """The answer to one input, piece by piece, by whoever answers this `key` (as in `predict`); with the last
        piece it is in the spool. `whole`: nobody sees a piece before the last one is there.

        An answer that nobody has waited for to its end is in no log. Raises what `predict` does.
        """
        self._require(model)
        champion = self.engine()
        (text,) = self._taken([given])
        traffic, name = self.traffic, ""
        if traffic is None:
            parts = self._written(champion, text, sampling)
        else:
            parts = traffic.write(champion, text, key, lambda engine: self._pieces(engine, text, sampling), whole)
        async for part in parts:
            version = part.engine.version.version
            name = name or new_id(model, version)
            o = part.piece.output
            if o is not None:
                made = Prediction(name, utc_now(), model, version, text, o.label, o.confidence, o.scores, o.embedding)
                self._append([made, *(traffic.wrote(made, part, key) if traffic is not None else [])])
            yield Written(name, version, part.piece)

    async def _written(self, engine: Engine, text: str, sampling: Sampling) -> AsyncIterator[Part]:
        async for piece in self._pieces(engine, text, sampling):
            yield Part(engine, piece)

    async def _pieces(self, engine: Engine, text: str, sampling: Sampling) -> AsyncIterator[Piece]:
        """Each on a thread, of which asyncio has few: many texts may be written at once."""
        pieces, loop = self._trace.writing(engine, engine.write(text, sampling)), asyncio.get_running_loop()
        ended = False
        while not ended:
            ask = partial(contextvars.copy_context().run, next, pieces)
            piece: Piece = await loop.run_in_executor(self._writing, ask)
            yield piece
            ended = piece.ended is not None

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """The champion's, which are in no log. Raises as `predict` does."""
        self._require(model)
        self.engine()
        texts = self._taken(texts)
        answered = await self._answer(texts)
        read = await asyncio.to_thread(answered.engine.predictor.lengths, texts)
        return Embedded([output.embedding for output in answered.outputs], sum(read))

    async def explain(self, model: str, texts: Sequence[str], label: str | None) -> Explained:
        """One Explanation an input, of `label` or of the predicted one. Not in the log: nothing is predicted.

        One text of one request at a time, on a thread: predictions go on. Raises NotFoundError, NotReadyError,
        UserError.
        """
        self._require(model)
        engine = self.engine()
        if label is not None:
            self._require_label(label, engine)
        made = []
        for text in self._taken(texts):
            async with self._explaining:
                made.append(await asyncio.to_thread(engine.predictor.explain, text, label, self._steps))
        return Explained(engine.version.version, made)

    def labelled(self, prediction_id: str, label: str) -> Feedback:
        """The true label of one of its predictions, which is in no log yet. Raises UserError, NotReadyError."""
        model, _ = parse_id(prediction_id)
        self._require(model)
        self._require_label(label, self.engine())
        return Feedback(prediction_id, utc_now(), model, label)

    def keep(self, labels: Sequence[Feedback]) -> None:
        """All or none, of whichever models. Raises OSError."""
        self._append(labels)

    def _append(self, records: Sequence[Record]) -> None:
        with self._trace.spool(self.model, len(records)):
            self._spool.append(records)

    def _taken(self, inputs: Sequence[str]) -> list[str]:
        made = []
        for at, given in enumerate(inputs):
            try:
                made.append(self._take(given))
            except ValueError as error:
                raise UserError(f"inputs.{at} {error}") from None
        return made

    def _require_label(self, label: str, engine: Engine) -> None:
        fault = engine.predictor.fault(label)
        if fault:
            raise UserError(fault, where=self.model)

    def _require(self, model: str) -> None:
        if model != self.model:
            raise NotFoundError(f"no model {model[:80]!r} is served here", mend=f"this is {self.model!r}")
