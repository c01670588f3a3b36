"""What a person sees while long work runs: a bar with time left on a terminal, one plain line a phase elsewhere.

Everything goes to stderr, so that stdout carries only results (`--json`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Prompt

_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line, with the clock when it goes to a log."""
    _err.print(line if _err.is_terminal else f"{time.strftime('%H:%M:%S')} {line}", markup=False)


def draw(lines: Iterable[str]) -> None:
    """A picture, for who looks at a terminal; a log has none."""
    if _err.is_terminal:
        for line in lines:
            say(line)


def is_attended() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and _err.is_terminal


def ask(question: str, choices: list[str], default: str) -> str:
    """One of the choices. Another Ctrl-C, or the end of the input, is the default."""
    try:
        return Prompt.ask(question, console=_err, choices=choices, default=default)
    except (KeyboardInterrupt, EOFError):
        return default


class Meter:
    """Moves a bar on a terminal; in a log it speaks at most every `every` seconds."""

    def __init__(self, label: str, total: int, every: float = 10.0) -> None:
        self.label, self.total, self.every = label, total, every
        self._start = self._last = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None
        if _err.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_err
            )
            self._bar.start()
            self._task = self._bar.add_task(label, total=total)

    def update(self, done: int, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self.label} {note}".strip())
            return
        now = time.monotonic()
        if done == self._done:
            return
        if now - self._last >= self.every or done >= self.total:
            self._last, self._done = now, done
            left = (now - self._start) / max(done, 1) * (self.total - done)
            say(f"{self.label} {done}/{self.total} {note}, {left:.0f} s left")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def meter(label: str, total: int) -> Iterator[Meter]:
    made = Meter(label, total)
    try:
        yield made
    finally:
        made.stop()
