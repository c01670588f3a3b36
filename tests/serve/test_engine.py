from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from jobs.tasks.task import Piece, Sampling
from serve.engines import engine

from . import fakes


def test_a_version_that_answers_as_its_trainer_is_admitted(tmp_path: Path) -> None:
    made = engine.load(fakes.version(3), fakes.write_version(tmp_path / "3", 0.75), fakes.load)
    assert made.version.version == 3
    assert made.labels == fakes.LABELS


def test_one_that_does_not_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = fakes.write_version(tmp_path / "3", 0.75, golden=0.70)
    with pytest.raises(ClusterError, match=r"m version 3: answers the golden inputs 0\.05 away from its trainer"):
        engine.load(fakes.version(3), folder, fakes.load)


class Meeting(fakes.FakePredictor):
    """Who writes waits until `most` do, or gives up."""

    def __init__(self, most: int, *, at_once: bool) -> None:
        super().__init__()
        self.at_once = at_once
        self.all = threading.Barrier(most, timeout=30.0 if at_once else 0.5)

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        self.all.wait()
        yield from super().write(given, sampling)


@pytest.mark.parametrize("at_once", [True, False])
def test_texts_are_written_at_once_by_what_says_so_and_else_in_turns(*, at_once: bool) -> None:
    served = engine.Engine(fakes.version(1), Meeting(3, at_once=at_once))

    def written(given: str) -> str:
        try:
            return "".join(piece.text for piece in served.write(given, Sampling(9)))
        except threading.BrokenBarrierError:
            return "alone"

    with ThreadPoolExecutor(3) as threads:
        said = list(threads.map(written, ["a b", "c", "d e f"]))
    assert said == (["a b", "c", "d e f"] if at_once else ["alone"] * 3)
