from __future__ import annotations

import pytest

from jobs.training.notices import MOST_STEPS, Notices


def asked(seconds: list[float]) -> list[int]:
    """The steps after which Ray was asked, of steps that take so long each."""
    found, now = [], [0.0]
    notices = Notices(lambda: found.append(step), lambda steps: steps, lambda: now[0])
    for step, took in enumerate(seconds, 1):
        now[0] += took
        assert not notices(step)
    return found


@pytest.mark.parametrize(("took", "apart"), [(9.0, 1), (0.5, 4), (0.001, MOST_STEPS)])
def test_workers_ask_every_two_seconds_or_so(took: float, apart: int) -> None:
    assert asked([took] * 100) == [1, *range(2, 101, apart)]


def test_steps_that_turn_slow_are_soon_noticed() -> None:
    made = asked([0.001] * 50 + [9.0] * 50)
    assert made[:5] == [1, 2, 22, 42, 62]
    assert made[5:] == list(range(63, 101))


def test_what_was_said_is_new_once() -> None:
    words = iter([None, "node 1", "node 1", "nodes 1 and 2", None, "node 1"])
    notices = Notices(lambda: next(words), lambda steps: 1)
    assert [notices(step) for step in range(6)] == [False, True, False, True, False, True]


def test_ranks_do_as_the_first_says() -> None:
    found: list[int] = []
    notices = Notices(lambda: found.append(step), lambda steps: 3)
    for step in range(10):
        notices(step)
    assert found == [0, 3, 6, 9]
