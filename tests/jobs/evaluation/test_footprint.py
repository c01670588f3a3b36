from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.evaluation import footprint
from jobs.tasks.task import Output


class Slow:
    def __init__(self, seconds: float, weight_bytes: int = 100) -> None:
        self.seconds, self.weight_bytes = seconds, weight_bytes

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        time.sleep(self.seconds)
        return []


def test_a_footprint_has_both_batches_and_the_files_that_were_trained(tmp_path: Path) -> None:
    for name, size in (("adapter/a.safetensors", 10), ("adapter/b/c.json", 5), ("tokenizer/t.json", 1000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    found = footprint.measure(Slow(0.002), tmp_path, ["a", "b"])
    assert [latency.batch for latency in found.latencies] == [1, 32]
    assert all(2 <= latency.median_ms <= latency.p95_ms for latency in found.latencies)
    assert (found.weight_bytes, found.file_bytes) == (100, 15)


def test_a_busy_machine_does_not_hold_up_the_rest() -> None:
    began = time.monotonic()
    found = footprint.compare(Slow(0.1), Slow(0.1), ["a"])
    assert time.monotonic() - began < 5  # 30 rounds would take 6 s
    assert found.latency == pytest.approx(1, rel=0.5)


def test_a_slower_and_larger_model_shows() -> None:
    found = footprint.compare(Slow(0.001), Slow(0.006, 300), ["a", "b"])
    assert found.latency_low <= found.latency
    assert found.latency_low > 2
    assert found.size == pytest.approx(3)
