"""What answers: a model version loaded for inference, admitted only when it answers as its trainer did."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from cluster.errors import ClusterError
from cluster.store.registry import ModelVersion
from jobs.explain.explanation import Explanation
from jobs.models.predictor import Predictor
from jobs.tasks.task import Output, Piece, Sampling

from . import parity
from .choice import INT8, ONNX, OPENVINO, TOLERANCE, TORCH

_IN_THREAD = frozenset({TORCH, ONNX, INT8, OPENVINO})  # what works in the thread that asks


class Shared(Protocol):
    """A base model that several loaded models share."""

    def answer(self, asked: Sequence[tuple[Any, Sequence[str]]], /) -> list[list[Output]]: ...


class Answers(Protocol):
    """What the engine asks of a loaded model. `base` is None for one that shares nothing.

    `at_once` says that it answers many at a time, on any thread; others are asked by one at a time.
    """

    labels: tuple[str, ...]

    @property
    def engine(self) -> str: ...

    @property
    def at_once(self) -> bool: ...

    def ready(self) -> None:
        """Raises ClusterError when it can answer no more, and must be loaded anew."""

    @property
    def base(self) -> Shared | None: ...

    def __call__(self, inputs: Sequence[str], /) -> list[Output]: ...

    def fault(self, target: str, /) -> str: ...

    def write(self, given: str, sampling: Sampling, /) -> Iterator[Piece]: ...

    def explain(self, given: str, label: str | None, steps: int, /) -> Explanation: ...

    def lengths(self, inputs: Sequence[str], /) -> list[int]:
        """Tokens that it reads of each; 0 of what is no text. Safe beside a call."""


@dataclass(frozen=True)
class Engine:
    version: ModelVersion
    predictor: Answers
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.predictor.labels

    def answer(self, inputs: Sequence[str]) -> Answered:
        """One batch at a time: a canary that becomes champion may have one of each on its way."""
        with self._its_turn():
            clock = _clock(self.predictor.engine)
            began = clock()
            outputs = self.predictor(inputs)
            return Answered(self, outputs, token_hex(8), len(inputs), clock() - began)

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        """The answer piece by piece; batches and other texts have their turn between two of them, or are written
        meanwhile. Raises UserError.
        """
        pieces = self.predictor.write(given, sampling)
        ended = False
        while not ended:
            with self._its_turn():
                piece = next(pieces)
            yield piece
            ended = piece.ended is not None

    def _its_turn(self) -> AbstractContextManager[object]:
        return nullcontext() if self.predictor.at_once else self._turn


@dataclass(frozen=True)
class Answered:
    """All outputs of one request, from one engine, which took `seconds` for the whole batch they were in.

    Of the processor where the thread that asks does the work, else of the clock.
    `stand_in` says that the canary was to answer and could not. A text that was written by itself has no time.
    """

    engine: Engine
    outputs: list[Output]
    batch: str = ""
    batch_rows: int = 0
    seconds: float | None = 0.0
    stand_in: bool = False


def answer(asked: Sequence[tuple[Engine, Sequence[str]]]) -> list[Answered]:
    """What each engine makes of its inputs, in order; all at once where the first shares its base with the others."""
    shared = asked[0][0].predictor.base
    if len(asked) == 1 or shared is None:
        return [engine.answer(inputs) for engine, inputs in asked]
    clock = _clock(asked[0][0].predictor.engine)
    began = clock()
    outputs = shared.answer([(engine.predictor, inputs) for engine, inputs in asked])
    batch, rows, seconds = token_hex(8), sum(len(inputs) for _, inputs in asked), clock() - began
    return [Answered(engine, made, batch, rows, seconds) for (engine, _), made in zip(asked, outputs, strict=True)]


@cache
def _clock(engine: str) -> Callable[[], float]:
    """A champion and its canary may work at once, on one core: the clock on the wall would say that the canary, which
    seldom works alone, is the slower one.
    """
    import torch

    return time.thread_time if engine in _IN_THREAD and not torch.cuda.is_available() else time.perf_counter


Answer = Callable[[Sequence[str]], Awaitable[Answered]]
Load = Callable[[Path], Answers]


def load(version: ModelVersion, folder: Path, loader: Load = Predictor.load) -> Engine:
    """The engine of a version whose files are in `folder`. Raises ClusterError when it disagrees with its trainer."""
    predictor = loader(folder)
    golden = parity.golden(folder)
    worst, allowed = parity.apart(golden, predictor(golden.inputs)), TOLERANCE[predictor.engine]
    if worst > allowed:
        raise ClusterError(
            f"answers the golden inputs {worst:.2g} away from its trainer (allowed: {allowed:g})",
            where=f"{version.model} version {version.version}",
            mend="publish it again; it takes no traffic",
        )
    return Engine(version, predictor)
