"""What benches share, and what they say to who asks for too little. What they measure is asserted nowhere."""

from __future__ import annotations

import importlib
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def feeding(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("feeding")


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("spread")


def test_figures_of_several_runs_are_told_by_the_middle_one_and_their_range(spread: ModuleType) -> None:
    assert spread.spread([3.0, 1.0, 8.0], "{:.1f}x") == "3.0x [1.0x, 8.0x]"
    assert spread.spread([3.0, 1.0, 8.0], "{:+.0%}", statistics.mean) == "+400% [+100%, +800%]"
    assert spread.spread([1234.5], "{:,.0f}") == "1,234"


def test_too_few_rows_to_feed_from_are_one_line(
    feeding: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["feeding.py", "--rows", "64031"])
    with pytest.raises(SystemExit) as ended:
        feeding.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("feeding.py: error: --rows 64031: 64032 at least")
