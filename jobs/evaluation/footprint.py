"""What a model costs: the time an answer takes on this machine, and its size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:  # torch is behind it, and monitoring judges footprints
    from jobs.tasks.task import Output

T = TypeVar("T")

_BATCH = 32
_SINGLES, _BATCHES, _ROUNDS = 20, 5, 30
_LEAST, _SECONDS = 5, 2.0
"""Rounds that are always measured; after them no more are begun once so much time has passed: machines can be busy."""
_DRAWS = 1000


class Loaded(Protocol):
    """What of a predictor is needed here."""

    @property
    def weight_bytes(self) -> int: ...

    def __call__(self, inputs: Sequence[str], /) -> list[Output]: ...


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch of `batch` inputs."""

    batch: int
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Footprint:
    """`weight_bytes`: parameters as a replica holds them. `file_bytes`: what was trained, on disk."""

    latencies: tuple[Latency, ...]
    weight_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Ratios:
    """Challenger over champion. `latency`: median over rounds in which both answer one input, one after the other.

    `latency_low`: the lower end of its one-sided 95% bootstrap interval; noise alone does not lift it over a limit.
    """

    latency: float
    latency_low: float
    size: float


def measure(model: Loaded, folder: Path, texts: Sequence[str]) -> Footprint:
    """Of a version in `folder`, answering some of `texts` alone and in batches of 32."""
    singles = [[texts[i % len(texts)]] for i in range(_SINGLES)]
    batches = [[texts[(i * _BATCH + j) % len(texts)] for j in range(_BATCH)] for i in range(_BATCHES)]
    latencies = tuple(_latency(model, batch) for batch in (singles, batches))
    files = (f for part in ("adapter", "weights") for f in (folder / part).rglob("*") if f.is_file())
    return Footprint(latencies, model.weight_bytes, sum(f.stat().st_size for f in files))


def compare(champion: Loaded, challenger: Loaded, texts: Sequence[str], seed: int = 0) -> Ratios:
    """Latency at one input and size of two models side by side."""

    def ratio(i: int) -> float:
        text = texts[i % len(texts)]
        return 1 / _seconds(champion, [text]) * _seconds(challenger, [text])

    ratio(0)  # the first call pays for what later ones find ready
    found = np.array(_rounds(ratio, _ROUNDS))
    drawn = np.median(np.random.default_rng(seed).choice(found, (_DRAWS, len(found))), axis=1)
    size = challenger.weight_bytes / champion.weight_bytes
    return Ratios(float(np.median(found)), float(np.quantile(drawn, 0.05)), size)


def _latency(model: Loaded, batches: Sequence[Sequence[str]]) -> Latency:
    model(batches[0])
    seconds = _rounds(lambda i: _seconds(model, batches[i]), len(batches))
    median, p95 = 1000 * np.quantile(seconds, [0.5, 0.95])
    return Latency(len(batches[0]), float(median), float(p95))


def _rounds(measure: Callable[[int], T], most: int) -> list[T]:
    began, made = time.perf_counter(), [measure(i) for i in range(_LEAST)]
    while len(made) < most and time.perf_counter() - began < _SECONDS:
        made.append(measure(len(made)))
    return made


def _seconds(model: Loaded, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    model(texts)
    return time.perf_counter() - began
