from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.evaluation import footprint
from jobs.tasks.task import Output


class Machine:
    """A clock that only models move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def model(self, seconds: float, weight_bytes: int = 100) -> Slow:
        return Slow(self, seconds, weight_bytes)


class Slow:
    def __init__(self, machine: Machine, seconds: float, weight_bytes: int) -> None:
        self.machine, self.seconds, self.weight_bytes, self.calls = machine, seconds, weight_bytes, 0

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        self.machine.now += self.seconds
        self.calls += 1
        return []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(footprint, "time", SimpleNamespace(perf_counter=made.perf_counter))
    return made


def test_a_footprint_has_both_batches_and_the_files_that_were_trained(machine: Machine, tmp_path: Path) -> None:
    for name, size in (("adapter/a.safetensors", 10), ("adapter/b/c.json", 5), ("tokenizer/t.json", 1000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    found = footprint.measure(machine.model(0.002), tmp_path, ["a", "b"])
    assert [latency.batch for latency in found.latencies] == [1, 32]
    assert all(latency.median_ms == pytest.approx(2) for latency in found.latencies)
    assert all(latency.p95_ms == pytest.approx(2) for latency in found.latencies)
    assert (found.weight_bytes, found.file_bytes) == (100, 15)


def test_a_busy_machine_does_not_hold_up_the_rest(machine: Machine) -> None:
    quick, slow = machine.model(0.001), machine.model(1.0)
    footprint.compare(quick, quick, ["a"])
    assert quick.calls == 2 * (1 + 30)
    footprint.compare(slow, slow, ["a"])
    assert slow.calls == 2 * (1 + 5)


def test_a_slower_and_larger_model_shows(machine: Machine) -> None:
    found = footprint.compare(machine.model(0.001), machine.model(0.006, 300), ["a", "b"])
    assert found.latency == pytest.approx(6)
    assert found.latency_low == pytest.approx(6)
    assert found.size == pytest.approx(3)
