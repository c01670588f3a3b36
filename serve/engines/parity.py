"""Does a version answer as its trainer did? Its golden inputs are asked again, the answers held to the trainer's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.task import Output

GOLDEN = "golden.json"


@dataclass(frozen=True)
class Golden:
    """What a version's trainer answered. Of an answer without probabilities its scores are empty."""

    inputs: list[str]
    labels: list[str]
    scores: list[list[float]]


def golden(folder: Path) -> Golden:
    """Of a version's folder."""
    return read((folder / GOLDEN).read_bytes())


def read(data: bytes) -> Golden:
    """Of a version's file `GOLDEN`."""
    tree = json.loads(data)
    labels = tree.get("labels") or [""] * len(tree["scores"])  # of an older version: it has scores, which suffice
    return Golden(tree["inputs"], labels, tree["scores"])


def apart(wanted: Golden, outputs: Sequence[Output]) -> float:
    """The largest difference of a probability; of answers without any the share that are others."""
    said = [(output.label, list(output.scores.values())) for output in outputs]
    return differing(wanted, said)


def differing(wanted: Golden, said: Sequence[tuple[str, Sequence[float]]]) -> float:
    """`apart` of labels and probabilities as they come from elsewhere. Infinite where they are not as many."""
    if [len(scores) for _, scores in said] != [len(scores) for scores in wanted.scores]:
        return float("inf")
    pairs = list(zip(wanted.labels, wanted.scores, said, strict=True))
    others = [label != answer[0] for label, scores, answer in pairs if not scores]
    largest = max(
        (abs(a - b) for _, scores, answer in pairs for a, b in zip(scores, answer[1], strict=True)), default=0.0
    )
    return max(largest, sum(others) / max(1, len(others)))
