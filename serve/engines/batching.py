"""Adaptive batches: what waits goes through the engine together, as soon as the engine is free.

Requests of several models go together where these share a base.

Nobody waits for others to come: a request that finds the engine idle is answered at once, and while the engine works
the next batch gathers. Under load batches grow by themselves, and what HTTP costs runs beside the engine.

That holds for vLLM too, which could take each request as it comes: on CPUs that gave half of the texts (decision 25).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue

from cluster.errors import ClusterError
from serve.tracing import UNTRACED, Trace, Turn

from .engine import Answer, Answered, Engine, answer

Loaded = Callable[[], Engine | None]
"""The engine that serves a model now, if any."""


@dataclass(frozen=True)
class Lane:
    """One version's way: the engine that is loaded, if any, and what sends inputs through it."""

    engine: Loaded
    answer: Answer


@dataclass(frozen=True)
class Waiting:
    """One request: what engine is to answer, its inputs, who waits for the answers, and its place in a trace."""

    engine: Loaded
    inputs: Sequence[str]
    answer: asyncio.Future[Answered]
    turn: Turn | None = None

    @property
    def longest(self) -> int:
        return max(map(len, self.inputs))


def chosen(waiting: Sequence[Waiting], most: int) -> tuple[list[Waiting], list[Waiting]]:
    """The next batch of at most `most` inputs, and who waits on; the first of those waiting is always in the batch.

    With it go those whose inputs are most like its own in length, so that little is padding. A request goes whole: one
    with more inputs than `most` goes alone.
    """
    if sum(len(one.inputs) for one in waiting) <= most:
        return list(waiting), []
    first, *others = waiting
    length, room, taken = first.longest, most - len(first.inputs), {0}
    for at, one in sorted(enumerate(others, 1), key=lambda pair: abs(pair[1].longest - length)):
        if len(one.inputs) <= room:
            room -= len(one.inputs)
            taken.add(at)
    return [waiting[at] for at in sorted(taken)], [one for at, one in enumerate(waiting) if at not in taken]


class Batcher:
    """A thread that feeds engines, of one model or of many on one base: a batch ends on those it began on."""

    def __init__(self, name: str, most: int, trace: Trace = UNTRACED) -> None:
        self._name, self._most, self._trace = name, most, trace
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def lane(self, engine: Loaded) -> Answer:
        """What answers by this engine, with its batches shared by all lanes."""
        return partial(self.answer, engine)

    async def answer(self, engine: Loaded, inputs: Sequence[str]) -> Answered:
        """Answers in the inputs' order, all from one engine. Raises what the engine raised, ClusterError without one.

        Who is cancelled while it waits takes no turn.
        """
        one = Waiting(engine, inputs, asyncio.get_running_loop().create_future(), self._trace.turn())
        self._queue.put(one)
        return await one.answer

    def stop(self) -> None:
        """Answer what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        waiting: list[Waiting] = []
        while self._gathered(waiting):
            waiting = [one for one in waiting if not one.answer.cancelled()]
            if not waiting:
                continue
            batch, waiting = chosen(waiting, self._most)
            # One call for the whole batch: each one wakes the loop, which costs more than what it does then.
            batch[0].answer.get_loop().call_soon_threadsafe(_deliver, self._answered(batch))
            del batch  # with what it holds of the engines, which may be let go before there is another

    def _gathered(self, waiting: list[Waiting]) -> bool:
        """Adds all who have come to those `waiting`, once there is anybody; False at the end."""
        with suppress(Empty):
            while True:
                one = self._queue.get(block=not waiting)
                if one is None:
                    self._queue.put(None)  # again, for when nobody waits any more
                    return bool(waiting)
                waiting.append(one)
        return True

    def _answered(self, batch: Sequence[Waiting]) -> list[tuple[Waiting, Answered | Exception]]:
        try:
            return list(self._through(batch))
        except Exception as error:  # noqa: BLE001 - the engine's, for whoever asked
            if len(batch) == 1:
                return [(batch[0], error)]
            # Each alone once more: the fault may be one request's, and no reason to fail the others.
            return [answered for one in batch for answered in self._answered([one])]

    def _through(self, batch: Sequence[Waiting]) -> list[tuple[Waiting, Answered]]:
        engines = _engines(batch)
        parts: dict[int, tuple[Engine, list[Waiting]]] = {}
        for one, engine in zip(batch, engines, strict=True):
            parts.setdefault(id(engine), (engine, []))[1].append(one)
        asked = [(engine, [given for one in part for given in one.inputs]) for engine, part in parts.values()]
        rows = sum(len(inputs) for _, inputs in asked)
        with self._trace.batch(self._name, [one.turn for one in batch], engines, rows):
            answered = answer(asked)
        whole = zip(parts.values(), answered, strict=True)
        return [pair for (_, part), made in whole for pair in _shares(part, made)]


def _engines(batch: Sequence[Waiting]) -> list[Engine]:
    """Of each, one and the same for all of one model: it may be swapped meanwhile. Raises ClusterError."""
    lanes = {one.engine: one.engine() for one in batch}
    found = [lanes[one.engine] for one in batch]
    if any(engine is None for engine in found):
        raise ClusterError("the version that was to answer is no longer loaded", mend="try again")
    return [engine for engine in found if engine is not None]


def _shares(part: Sequence[Waiting], whole: Answered) -> Iterator[tuple[Waiting, Answered]]:
    outputs = iter(whole.outputs)
    return ((one, replace(whole, outputs=[next(outputs) for _ in one.inputs])) for one in part)


def _deliver(answered: Sequence[tuple[Waiting, Answered | Exception]]) -> None:
    for one, made in answered:
        if one.answer.done():  # cancelled meanwhile
            continue
        if isinstance(made, Exception):
            one.answer.set_exception(made)
        else:
            one.answer.set_result(made)
