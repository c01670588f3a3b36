"""What answers: a model version loaded for inference, admitted only when it answers as its trainer did."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.errors import ClusterError
from cluster.registry import ModelVersion
from jobs.explain.explanation import Explanation
from jobs.predictor import Output, Predictor

TOLERANCE = 1e-3
"""Largest difference of a probability from the trainer's."""


class Answers(Protocol):
    """What the engine asks of a loaded model."""

    labels: tuple[str, ...]

    def __call__(self, inputs: Sequence[str], /) -> list[Output]: ...

    def explain(self, given: str, label: str | None, steps: int, /) -> Explanation: ...


@dataclass(frozen=True)
class Engine:
    version: ModelVersion
    predictor: Answers

    @property
    def labels(self) -> tuple[str, ...]:
        return self.predictor.labels


Load = Callable[[Path], Answers]


def load(version: ModelVersion, folder: Path, loader: Load = Predictor.load) -> Engine:
    """The engine of a version whose files are in `folder`. Raises ClusterError when it disagrees with its trainer."""
    predictor = loader(folder)
    golden = json.loads((folder / "golden.json").read_text())
    worst = 0.0
    for output, wanted in zip(predictor(golden["inputs"]), golden["scores"], strict=True):
        worst = max(worst, *(abs(a - b) for a, b in zip(output.scores.values(), wanted, strict=True)))
    if worst > TOLERANCE:
        raise ClusterError(
            f"answers the golden inputs {worst:.2g} away from its trainer (allowed: {TOLERANCE:g})",
            where=f"{version.model} version {version.version}",
            mend="publish it again; it takes no traffic",
        )
    return Engine(version, predictor)
