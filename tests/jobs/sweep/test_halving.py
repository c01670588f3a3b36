"""Halving upon a training that is played: each point has a curve of its own, and checkpoints are empty files."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import TrainingError
from cluster.store.storage import Storage
from jobs.spec import Spec
from jobs.sweep import halving, points, rungs, stage
from jobs.sweep.record import DIVERGED, METRIC, Kept, Trial
from jobs.sweep.stage import Ended, Stage

RATES = [round(0.1 * at, 1) for at in range(1, 10)]


def spec(**sweep: Any) -> Spec:
    search = {"training.learning_rate": {"choice": RATES}}
    told = {"scheduler": "halving", "algorithm": "grid", "epochs": 9, "reduction_factor": 3, "search": search} | sweep
    return Spec.model_validate({"name": "x", "base_model": "m", "data": {"source": "a.csv"}, "sweep": told})


def loss(rate: float, epoch: float) -> float:
    """Low rates are slow and come out best: 0.1 wins at the end, and is among the best three at all rungs."""
    return rate + abs(rate - 0.2) / epoch


class Played:
    """A training, of which the process is killed after so many trials. `trained` counts epochs by point."""

    def __init__(
        self, made: Spec, kept: Kept, kill: int | None = None, failing: dict[float, int] | None = None
    ) -> None:
        self.trained: dict[tuple[float, int], int] = {}
        self.stages: list[tuple[int, int]] = []
        self.held: list[int] = []
        self._spec, self._kept, self._left, self._failing = made, kept, kill, failing or {}

    def __call__(self, of: Stage, ended: Ended) -> None:
        self.stages.append((of.until, of.trials))
        for _ in range(of.trials):
            point = of.points()
            assert point is not None
            if self._left == 0:
                raise TrainingError("killed")
            ended(self._train(point, of))
            self._left = None if self._left is None else self._left - 1
            self.held.append(len(self.files()))

    def files(self) -> list[str]:
        return self._kept.storage.list(f"{self._kept.place}/paused")

    def _train(self, point: dict[str, Any], of: Stage) -> Trial:
        rate, before = point["training.learning_rate"], of.known.get(points.name(point))
        assert of.paused is not None
        begin = int(before.epochs) if before and of.paused.holds(before) else 0
        reports = []
        for epoch in range(begin + 1, of.until + 1):
            self.trained[rate, epoch] = self.trained.get((rate, epoch), 0) + 1
            diverged = self._failing.get(rate) == epoch
            best = min(loss(rate, at) for at in range(1, epoch + 1))
            reports.append({"epoch": float(epoch), "step": epoch, METRIC: best, DIVERGED: diverged})
            if diverged:
                break
        if of.keeps:
            self._kept.storage.write_bytes(
                f"{of.paused.place}/{points.name(point)}-{reports[-1]['step']}/loop.json", b""
            )
        return stage.outcome(self._spec, point, reports, "", before)


def run(made: Spec, kept: Kept, played: Callable[[Stage, Ended], None]) -> dict[float, Trial]:
    trials = halving.sweep(made, kept, kept.trials(), played)
    return {trial.values["training.learning_rate"]: trial for trial in trials}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(Storage(str(tmp_path)), "sweeps/x")


def epochs(trials: dict[float, Trial]) -> Sequence[float]:
    return [trials[rate].epochs for rate in RATES if rate in trials]


def test_the_best_third_goes_on_from_where_it_was(kept: Kept) -> None:
    played = Played(spec(), kept)
    trials = run(spec(), kept, played)
    assert played.stages == [(1, 9), (3, 3), (9, 1)]
    assert epochs(trials) == [9.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [trials[rate].status for rate in (0.1, 0.2, 0.9)] == ["finished", "stopped", "stopped"]
    assert set(played.trained.values()) == {1}
    assert len(played.trained) == rungs.left(rungs.ladder(spec().sweep, 9), ()) == 9 + 3 * 2 + 6
    assert trials[0.1].losses == tuple(
        (float(at), pytest.approx(min(loss(0.1, e) for e in range(1, at + 1)))) for at in range(1, 10)
    )
    assert {t.id: t for t in kept.trials()} == {t.id: t for t in trials.values()}


def test_checkpoints_are_kept_for_those_that_may_go_on_and_no_longer(kept: Kept) -> None:
    played = Played(spec(), kept)
    run(spec(), kept, played)
    assert played.held[:3] == [1, 2, 3]
    assert played.held[3:] == [3] * 6 + [3, 2, 1] + [0]  # the best of the rung; in the next, who waits and its best
    assert played.files() == []


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_drawn_points_are_all_in_the_first_rung(kept: Kept, algorithm: str) -> None:
    made = spec(algorithm=algorithm, trials=7)
    played = Played(made, kept)
    assert len(run(made, kept, played)) == 7
    assert played.stages == [(1, 7), (3, 3), (9, 1)]


def test_who_diverges_is_kept_and_never_goes_on(kept: Kept) -> None:
    played = Played(spec(), kept, failing={0.1: 1, 0.2: 2})
    trials = run(spec(), kept, played)
    assert played.stages == [(1, 9), (3, 3), (9, 1)]
    assert epochs(trials) == [1.0, 2.0, 9.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [(trials[rate].status, trials[rate].error) for rate in (0.1, 0.2)] == [("failed", DIVERGED)] * 2
    assert trials[0.3].status == "finished"
    assert played.files() == []


def test_a_sweep_in_which_all_diverge_ends(kept: Kept) -> None:
    played = Played(spec(), kept, failing=dict.fromkeys(RATES, 1))
    assert {trial.error for trial in run(spec(), kept, played).values()} == {DIVERGED}
    assert played.stages == [(1, 9)]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), max_size=5), st.integers(0, 99), st.sampled_from([{}, {0.1: 3}, {0.2: 1, 0.5: 1}]))
def test_however_often_it_is_killed_it_comes_to_the_same_and_trains_nothing_twice(
    kills: list[int], seed: int, failing: dict[float, int]
) -> None:
    made = spec().with_values({"training.seed": seed})  # another order of the grid
    with TemporaryDirectory() as folder:
        whole = run(made, one := Kept(Storage(folder), "sweeps/a"), Played(made, one, failing=failing))
        other, trained = Kept(Storage(folder), "sweeps/b"), []
        for kill in kills:
            played = Played(made, other, kill, failing)
            try:
                run(made, other, played)
            except TrainingError as error:
                assert str(error) == "killed"
            trained += [key for key, times in played.trained.items() for _ in range(times)]
        played = Played(made, other, failing=failing)
        assert run(made, other, played) == whole
        trained += [key for key, times in played.trained.items() for _ in range(times)]
        assert len(set(trained)) == len(trained)
        assert played.files() == []


@settings(max_examples=20)
@given(st.randoms())
def test_the_order_of_the_points_decides_nothing(draw: random.Random) -> None:
    made = spec().with_values({"training.seed": draw.randrange(10**6)})
    with TemporaryDirectory() as folder:
        trials = run(made, kept := Kept(Storage(folder), "sweeps/x"), Played(made, kept))
    assert epochs(trials) == [9.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_a_larger_sweep_goes_on_from_a_smaller_one_and_begins_anew_what_has_no_checkpoint(kept: Kept) -> None:
    first = spec(algorithm="random", trials=4)
    run(first, kept, Played(first, kept))
    more = spec(algorithm="random", trials=9)
    played = Played(more, kept)
    trials = run(more, kept, played)
    assert epochs(trials)[0] == 9.0
    assert played.stages[0] == (1, 5)
    fresh = Kept(kept.storage, "sweeps/fresh")
    whole = run(more, fresh, Played(more, fresh))
    assert all(trials[rate].losses[: len(t.losses)] == t.losses for rate, t in whole.items())


def test_nothing_is_trained_when_all_is_known(kept: Kept) -> None:
    whole = run(spec(), kept, Played(spec(), kept))
    played = Played(spec(), kept)
    assert run(spec(), kept, played) == whole
    assert played.stages == []
