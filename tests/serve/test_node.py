"""What the replicas of a node share: when they do it, whose turn it is, and one question for all."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.store.registry import CHAMPION, ModelVersion
from cluster.store.turn import turn
from serve.node import Aliases, until_tick

FIRST = ModelVersion("m", 1, "run", "file:///a", {"dataset": "d"}, ("champion",), 1.5)


class Registry:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked, self.version, self.away = 0, FIRST, False

    def find(self, model: str, alias: str) -> ModelVersion | None:
        self.asked += 1
        if self.away:
            raise OSError("away")
        return self.version if alias == CHAMPION else None

    def download(self, version: ModelVersion) -> Path:
        return Path(version.source)


class Node:
    """Replicas that share a folder, and a clock that a test sets."""

    def __init__(self, folder: Path, replicas: int = 8) -> None:
        self.registry, self.now = Registry(), 1000.0
        self.replicas = [Aliases(self.registry, folder / "aliases", 1.0, lambda: self.now) for _ in range(replicas)]  # type: ignore[arg-type]

    def told(self, alias: str = CHAMPION) -> list[ModelVersion | None]:
        return [replica.find("m", alias) for replica in self.replicas]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_at_each_tick_one_replica_asks_and_all_are_told_the_same(node: Node) -> None:
    assert node.told() == [FIRST] * 8
    assert node.told("canary") == [None] * 8
    assert node.registry.asked == 2
    node.registry.version = replace(FIRST, version=2)
    node.now += 0.9
    assert node.told() == [node.registry.version] * 8
    assert node.registry.asked == 3


def test_while_the_registry_is_away_each_is_told_so(node: Node) -> None:
    node.registry.away = True
    for replica in node.replicas:
        with pytest.raises(OSError, match="away"):
            replica.find("m", CHAMPION)
    node.registry.away = False
    assert node.told() == [FIRST] * 8


def test_what_was_cut_off_as_it_was_written_and_a_clock_that_was_set_back_are_asked_again(node: Node) -> None:
    node.told()
    (kept,) = (node.replicas[0]._folder).glob("*.json")
    kept.write_text(kept.read_text()[:20])
    assert node.told() == [FIRST] * 8
    node.now -= 3600
    assert node.told() == [FIRST] * 8
    assert node.registry.asked == 3


def test_one_at_a_time_has_its_turn(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with turn(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (160, 1)


@given(st.floats(0.1, 100), st.floats(1e9, 2e9))
def test_replicas_of_a_node_tick_together_and_others_do_not(seconds: float, now: float) -> None:
    here, there = (until_tick(name, seconds, now) for name in ("/a", "/b"))
    assert 0 < here <= seconds + 1e-6
    tick = now + here
    assert abs(until_tick("/a", seconds, tick + seconds / 2) - seconds / 2) < 1e-3 * seconds + 1e-5
    assert 0.01 < abs(here - there) / seconds < 0.99
