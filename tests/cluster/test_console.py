from __future__ import annotations

import re

import pytest
from rich.console import Console

from cluster import console
from cluster.console import draw, meter, say


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_a_line_in_a_log_has_the_clock_and_is_taken_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]loss[/bold] 0.5")
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[bold\]loss\[/bold\] 0\.5", lines(capsys)[0])


def test_a_meter_in_a_log_speaks_of_its_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    with meter("train", total=10) as bar:
        for done in (3, 7, 10, 10):
            bar.update(done, f"loss {1 / done:.2f}")
    said = lines(capsys)
    assert len(said) == 1
    assert said[0].endswith("train 10/10 loss 0.10, 0 s left")


def test_a_log_has_no_pictures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    draw(["/\\", "--"])
    assert lines(capsys) == []
    monkeypatch.setattr(console, "_err", Console(stderr=True, force_terminal=True, highlight=False))
    draw(["/\\", "--"])
    assert lines(capsys) == ["/\\", "--"]
