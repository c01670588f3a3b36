from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import SweepSpec
from jobs.sweep import rungs
from jobs.sweep.record import Trial
from jobs.sweep.rungs import Rung


def sweep(epochs: int, factor: int, grace: int = 1) -> SweepSpec:
    return SweepSpec.model_validate({"epochs": epochs, "reduction_factor": factor, "grace_epochs": grace})


SWEEPS = st.tuples(st.integers(1, 60), st.integers(2, 5), st.integers(1, 60)).map(
    lambda s: sweep(*s[:2], min(s[0], s[2]))
)


def trial(name: str, *losses: float, failed: bool = False) -> Trial:
    """One report an epoch."""
    status = "failed" if failed else "stopped"
    told = tuple((at + 1.0, min(losses[: at + 1])) for at in range(len(losses)))
    loss = None if failed or not losses else min(losses)
    return Trial(name, {"method.rank": name}, loss, None, float(len(losses)), status, losses=told)


@pytest.mark.parametrize(
    ("points", "of", "expected"),
    [
        (12, sweep(12, 3), [(1, 12), (3, 4), (9, 2), (12, 1)]),
        (6, sweep(2, 2), [(1, 6), (2, 3)]),
        (4, sweep(2, 2), [(1, 4), (2, 2)]),
        (3, sweep(27, 3), [(1, 3), (27, 1)]),
        (1, sweep(9, 3), [(9, 1)]),
        (8, sweep(4, 2, grace=4), [(4, 8)]),
        (8, sweep(9, 2, grace=2), [(2, 8), (4, 4), (8, 2), (9, 1)]),
    ],
)
def test_how_many_go_how_far(points: int, of: SweepSpec, expected: list[tuple[int, int]]) -> None:
    assert rungs.ladder(of, points) == tuple(Rung(*rung) for rung in expected)


def test_twelve_points_cost_a_quarter_of_their_grid() -> None:
    assert rungs.left(rungs.ladder(sweep(12, 3), 12), ()) == 35  # of 144 epochs


@given(SWEEPS, st.integers(1, 200))
def test_rungs_get_longer_and_emptier_and_end_at_the_last_epoch(of: SweepSpec, points: int) -> None:
    made = rungs.ladder(of, points)
    assert (made[0].trials, made[-1].epochs) == (points, of.epochs)
    for lower, upper in pairwise(made):
        assert upper.epochs > lower.epochs
        assert upper.trials < lower.trials
        assert upper.trials * of.reduction_factor >= lower.trials > (upper.trials - 1) * of.reduction_factor
    assert rungs.left(made, ()) <= points * of.epochs


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=20),
    st.integers(0, 9),
    st.randoms(),
)
def test_the_best_go_on_in_whatever_order_they_came(
    made: list[tuple[int, bool, int]], count: int, draw: random.Random
) -> None:
    """Many losses are equal, some failed thereafter, some did not come so far."""
    trials = [trial(f"{at:02}", *[loss / 4] * epochs, failed=failed) for at, (loss, failed, epochs) in enumerate(made)]
    rung = Rung(2, len(trials))
    chosen = rungs.best(trials, rung, count)
    able = [t for t in trials if t.epochs >= 2]
    assert len(chosen) == min(count, len(able))
    assert all(t in able for t in chosen)
    worst = max((t.losses[1][1] for t in chosen), default=0.0)
    assert all(t.losses[1][1] >= worst for t in able if t not in chosen)
    shuffled = draw.sample(trials, len(trials))
    assert rungs.best(shuffled, rung, count) == chosen
    assert {t.id for t in rungs.behind(trials, rung)} == {
        t.id for t in trials if t.status != "failed" and t not in able
    }


@given(SWEEPS, st.integers(1, 30), st.data())
def test_what_is_left_falls_to_nothing_as_trials_end(of: SweepSpec, points: int, data: Any) -> None:
    """Trials of loss as their number, which end in any order within a rung; whoever is worst never fails."""
    made = rungs.ladder(of, points)
    trials = {f"{at:02}": trial(f"{at:02}") for at in range(points)}
    left = rungs.left(made, ())
    assert left == sum(b.trials * (b.epochs - a.epochs) for a, b in zip((Rung(0, 0), *made), made, strict=False))
    for rung in made:
        for name in data.draw(st.permutations(sorted(trials)[: rung.trials])):
            trials[name] = trial(name, *[float(name)] * rung.epochs)
            now = rungs.left(made, tuple(trials.values()))
            assert now < left
            left = now
    assert left == 0


def test_a_failed_trial_has_nothing_left_in_the_rung_where_it_failed() -> None:
    made = rungs.ladder(sweep(4, 2), 4)  # 1, 2 and 4 epochs
    assert made == (Rung(1, 4), Rung(2, 2), Rung(4, 1))
    ended = [trial(str(at), 0.5) for at in range(3)]
    assert rungs.left(made, [*ended, trial("f", failed=True)]) == 2 * 1 + 1 * 2
    assert rungs.left(made, [*ended, trial("f", 0.1, failed=True)]) == 1 * 1 + 1 * 2
