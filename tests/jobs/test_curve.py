from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from jobs.training import curve


def reports(train: list[float], validation: list[float], *, stopped: bool = False) -> list[dict[str, float]]:
    return [
        {"step": 10 * at, "train_loss": t, "validation_loss": v, "stopped_early": float(stopped and at == len(train))}
        for at, (t, v) in enumerate(zip(train, validation, strict=True), 1)
    ]


def test_the_curve_is_drawn_and_follows_its_numbers(tmp_path: Path) -> None:
    pictures = []
    for worst in (0.5, 0.9):
        path = tmp_path / f"{worst}.png"
        losses = [worst, 0.3, 0.4]
        curve.draw([{"step": i, "train_loss": v, "validation_loss": v} for i, v in enumerate(losses)], path)
        pictures.append(imread(path))
    assert pictures[0].shape == pictures[1].shape == (480, 840, 4)
    assert not np.array_equal(*pictures)


def test_a_terminal_shows_both_losses_and_the_best() -> None:
    shown = curve.lines(reports([1.0, 0.4, 0.2], [1.0, 0.6, 0.8]), width=21, height=5)
    assert shown == [
        "1.000 |x",
        "      |                    v",
        "      |          v",
        "      |          t",
        "0.200 |                    t",
        "      +---------------------",
        "                 ^ best",
        "       step 10            30   t train loss, v validation loss",
    ]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10) | st.just(math.nan)), min_size=2, max_size=40))
def test_any_curve_fits_its_lines(losses) -> None:
    if all(math.isnan(v) for _, v in losses):
        return
    shown = curve.lines(reports(*map(list, zip(*losses, strict=True))))
    assert len(shown) == 12
    assert all(len(line) < 120 for line in shown)
    assert any(mark in line for line in shown[:9] for mark in "tx")


def test_a_point_is_no_curve() -> None:
    assert curve.lines(reports([1.0], [1.0])) == []


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            reports([1.0, 0.5, 0.2], [1.0, 0.6, 0.8], stopped=True),
            (
                "validation loss turned after step 20 (0.600 -> 0.800), training loss went 0.500 -> 0.200: the model began "
                "to overfit; stopped early, the best checkpoint is kept"
            ),
        ),
        (
            reports([1.0, 0.5, 0.2], [1.0, 0.6, 0.8]),
            (
                "validation loss turned after step 20 (0.600 -> 0.800), training loss went 0.500 -> 0.200: the model began "
                "to overfit; the best checkpoint is kept"
            ),
        ),
        (
            reports([0.5, 0.9], [0.6, 0.8]),
            (
                "validation loss turned after step 10 (0.600 -> 0.800), training loss went 0.500 -> 0.900: training does "
                "not converge, try a lower learning rate"
            ),
        ),
        (
            reports([1.0, 0.5], [1.0, 0.6]),
            "validation loss was still falling at the end (1.000 -> 0.600): more training.epochs may help",
        ),
        (reports([1.0, 0.5, 0.49], [1.0, 0.6, 0.601]), "validation loss settled at 0.600 (step 20)"),
        (reports([1.0, 0.5], [1.0, math.nan]), "training diverged: lower training.learning_rate"),
        (reports([1.0], [0.9]), "validation loss settled at 0.900 (step 10)"),
    ],
)
def test_what_a_curve_says(made, said: str) -> None:
    assert curve.told(made) == said
