from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from jobs.spec import Spec
from jobs.sweep import importance, points
from jobs.sweep.record import Importance, Trial

SEARCH = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}, "method.rank": {"choice": [4, 8, 16]}}
SPEC = Spec.model_validate(
    {"name": "x", "base_model": "m", "data": {"source": "a.csv"}, "sweep": {"epochs": 4, "search": SEARCH}}
)


def trials(count: int, weigh: float = 0.01) -> list[Trial]:
    """Their loss after one epoch goes by the rate, and a little by the rank; what came later is noise."""
    draw, made = random.Random(0), []
    for _ in range(count):
        point = {"training.learning_rate": 10 ** draw.uniform(-4, -2), "method.rank": draw.choice([4, 8, 16])}
        loss = abs(np.log10(point["training.learning_rate"]) + 3) + weigh * point["method.rank"]
        late = draw.random()
        losses = ((0.5, 9.0), (1.0, float(loss)), (4.0, late))
        made.append(Trial(points.name(point), point, late, None, 4.0, "finished", "", 8, losses))
    return made


def test_the_key_that_the_loss_goes_by_has_the_larger_share() -> None:
    found = importance.measure(SPEC, trials(30))
    assert list(found.shares) == ["training.learning_rate", "method.rank"]
    assert found.shares["training.learning_rate"] > 0.7
    assert sum(found.shares.values()) == 1 or abs(sum(found.shares.values()) - 1) < 1e-6
    assert (found.trials, found.epochs, found.note) == (30, 1.0, "")
    assert importance.measure(SPEC, trials(30)) == found


def test_too_few_trials_are_said_and_failed_ones_do_not_count() -> None:
    failed = Trial("f", {"method.rank": 4}, None, None, 0.0, "failed", "broke")
    assert importance.measure(SPEC, [*trials(7), failed]).note == "7 trials are too few, 8 would do"
    assert importance.measure(SPEC, [*trials(8), failed]).trials == 8


def test_trials_that_did_equally_well_tell_nothing() -> None:
    same = [Trial(t.id, t.values, 0.5, None, 4.0, "finished", "", 8, ((1.0, 0.5),)) for t in trials(9)]
    found = importance.measure(SPEC, same)
    assert (found.shares, found.note) == ({}, "all trials did equally well")


def test_the_picture_follows_the_shares(tmp_path: Path) -> None:
    pictures = []
    for share in (0.9, 0.6):
        path = tmp_path / f"{share}.png"
        importance.draw(Importance({"a": share, "b": 1 - share}, 12, 1.0), path)
        pictures.append(imread(path))
    assert pictures[0].shape == pictures[1].shape
    assert not np.array_equal(*pictures)
