"""Pauses, and which version waits for the end of one or for a person: a model's journal in, an entry out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from threading import Barrier, Thread
from typing import Any

import pytest

from monitoring import hold
from monitoring.journal import BEGUN, DONE, Journal

from .fakes import BEGAN, MODEL


@pytest.fixture
def journal(storage) -> Journal:
    ticks: Iterator[int] = count()
    return Journal(storage, lambda: BEGAN + timedelta(minutes=next(ticks)))


def passed(journal: Journal, version: int) -> None:
    journal.write(MODEL, "verdict", DONE, str(version), {"promote": True, "reasons": []})
    journal.write(MODEL, "awaits", DONE, str(version), {"version": version, "why": "a holiday"})


def waiting(journal: Journal) -> int | None:
    found = hold.awaiting(journal.entries(MODEL))
    return None if found is None else int(found.body["version"])


def test_pauses_are_numbered_and_one_is_open_at_a_time(journal):
    assert hold.paused(journal.entries(MODEL)) is None
    first = hold.pause(journal, MODEL, "a holiday", by="ann@desk")
    assert hold.pause(journal, MODEL, "another", by="bob@desk") == first
    assert hold.said(first) == "paused since 2026-03-01 23:50:00 UTC by ann@desk: a holiday"
    assert hold.resume(journal, MODEL) == first
    assert hold.pause(journal, MODEL).key == "2"


def test_two_who_pause_at_the_same_moment_make_one_pause(storage):
    made, together = [], Barrier(2)

    class Late(Journal):
        """Both have read the journal before either writes."""

        def write(self, *row: Any) -> bool:
            together.wait(10)
            return super().write(*row)

    people = [
        Thread(target=lambda who=who: made.append(hold.pause(Late(storage), MODEL, by=who))) for who in ("ann", "bob")
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert made[0] == made[1]
    hold.resume(Journal(storage), MODEL)
    assert hold.paused(Journal(storage).entries(MODEL)) is None


ENDS: dict[str, Callable[[Journal], object]] = {
    "its promotion": lambda j: j.write(MODEL, "promotion", DONE, "2-settled", {"version": 2}),
    "another's promotion": lambda j: j.write(MODEL, "promotion", DONE, "3-1", {"version": 3}),
    "a roll back": lambda j: j.write(MODEL, "rollback", DONE, "1-x", {"version": 1}),
    "its trial": lambda j: j.write(MODEL, "trial", BEGUN, "2", {"version": 2}),
    "the verdict on a later one": lambda j: j.write(MODEL, "verdict", DONE, "3", {"promote": False, "reasons": []}),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_version_that_passed_waits_until(journal, end):
    assert waiting(journal) is None
    passed(journal, 2)
    assert waiting(journal) == 2
    journal.write(MODEL, "promotion", BEGUN, "2-settled", {"version": 2})
    assert waiting(journal) == 2  # whoever began it may be dead
    ENDS[end](journal)
    assert waiting(journal) is None


def test_the_last_that_passed_is_what_waits(journal):
    passed(journal, 2)
    passed(journal, 3)
    assert waiting(journal) == 3
