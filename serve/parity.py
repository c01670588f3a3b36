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
    """The largest difference of a probability; of an answer without any, 1 where it is another."""
    said = [(output.label, list(output.scores.values())) for output in outputs]
    return differing(wanted, said)


def differing(wanted: Golden, said: Sequence[tuple[str, Sequence[float]]]) -> float:
    """`apart` of labels and probabilities as they come from elsewhere. Infinite where they are not as many."""
    if [len(scores) for _, scores in said] != [len(scores) for scores in wanted.scores]:
        return float("inf")
    pairs = zip(wanted.labels, wanted.scores, said, strict=True)
    return max((_one(label, scores, *answer) for label, scores, answer in pairs), default=0.0)


def _one(label: str, scores: Sequence[float], said: str, theirs: Sequence[float]) -> float:
    if not scores:
        return float(said != label)
    return max(abs(a - b) for a, b in zip(scores, theirs, strict=True))
