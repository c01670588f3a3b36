"""Stand-ins for a loaded model and the registry, importable by Ray's workers too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cluster.store.registry import CANARY, CHAMPION, PREVIOUS, ModelVersion
from jobs.explain.explanation import Explanation
from jobs.explain.words import TextExplanation, Word
from jobs.targets import label
from jobs.tasks.task import Output, Piece, Sampling
from serve.engines.engine import Engine, Shared

LABELS = ("negative", "positive")


class FakePredictor:
    """Sure of `share` for every text; its labels are fixed."""

    labels, engine = LABELS, "torch"

    def __init__(self, share: float = 0.75) -> None:
        self.base: Shared | None = None
        self.share, self.seconds = share, 0.0
        self.fails: Exception | None = None
        self.dead: Exception | None = None
        self.at_once = False
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        self.calls.append(list(texts))
        if self.fails is not None:
            raise self.fails
        time.sleep(self.seconds)
        scores = {"negative": 1 - self.share, "positive": self.share}
        return [Output("positive", self.share, scores, np.full(3, len(text), dtype=np.float32)) for text in texts]

    def ready(self) -> None:
        if self.dead is not None:
            raise self.dead

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        """The words of the input, a word a step."""
        words = given.split()[: sampling.most] or [""]
        whole = Output(" ".join(words), 0.5, {}, np.zeros(3, np.float32))
        for at, word in enumerate(words, 1):
            ended = "stop" if at == len(words) else None
            yield Piece(word if at == 1 else f" {word}", len(given.split()), at, ended, whole if ended else None)

    def fault(self, target: str) -> str:
        return label.fault(target, self.labels)

    def lengths(self, inputs: Sequence[str]) -> list[int]:
        """Of words."""
        return [len(given.split()) for given in inputs]

    def explain(self, text: str, label: str | None, steps: int) -> Explanation:
        """The first word says it all, of a text that has one."""
        share = self.share if label in {None, "positive"} else 1 - self.share
        words = tuple(Word(first, 0, len(first), share - 0.5) for first in text.split()[:1])
        return TextExplanation(text, label or "positive", share, 0.5, 0.0, words)


def load(folder: Path) -> FakePredictor:
    """The model whose share is written in the folder, and how many seconds it takes for a batch, where it is slow."""
    made, slow = FakePredictor(float((folder / "share.txt").read_text())), folder / "seconds.txt"
    made.seconds = float(slow.read_text()) if slow.exists() else 0.0
    return made


def write_version(folder: Path, share: float, golden: float | None = None) -> Path:
    """Files of a version; `golden` is what its trainer answered, when that was something else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "share.txt").write_text(str(share))
    trained = share if golden is None else golden
    (folder / "golden.json").write_text(
        json.dumps({"inputs": ["a", "b"], "labels": ["positive"] * 2, "scores": [[1 - trained, trained]] * 2})
    )
    return folder


def version(number: int) -> ModelVersion:
    return ModelVersion("m", number, f"run{number}", f"file:///{number}", {}, (CHAMPION,), 1e9)


class Follower:
    """Of a model whose engine is given elsewhere."""

    def __init__(self, failed: dict[int, str] | None = None) -> None:
        self.engine: Engine | None = None
        self.canary: Engine | None = None
        self.failed = failed or {}

    def stop(self) -> None:
        pass


class FakeRegistry:
    """Aliases in memory; folders by version."""

    def __init__(self, folders: dict[int, Path]) -> None:
        self.folders, self.champion = folders, 1
        self.previous: int | None = None
        self.canary: int | None = None
        self.away = self.files_away = False

    def find(self, model: str, alias: str) -> ModelVersion | None:
        if self.away:
            raise ConnectionError("the registry is away")
        named = {CHAMPION: self.champion, PREVIOUS: self.previous, CANARY: self.canary}
        number = {"m": named}[model][alias]
        return None if number is None else version(number)

    def download(self, found: ModelVersion) -> Path:
        if self.files_away:
            raise ConnectionError("the object store is away")
        return self.folders[found.version]
