from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread

from jobs import plot
from jobs.calibration import calibration
from jobs.scorecard import Scorecard, score
from jobs.slices import BY, slices


def card(right: int) -> Scorecard:
    rows = pd.DataFrame({"true": "a", "label": ["a"] * right + ["b"] * (60 - right), f"{BY}country": ["de", "fr"] * 30})
    return dataclasses.replace(
        score(list(rows["true"]), list(rows["label"]), ["a", "b"], resamples=5),
        calibration=calibration(np.linspace(0.5, 1, 60), (rows["label"] == "a").to_numpy()),
        slices=slices(rows, ["a", "b"], 30),
    )


def test_the_curve_is_drawn_and_follows_its_numbers(tmp_path: Path) -> None:
    pictures = []
    for worst in (0.5, 0.9):
        path = tmp_path / f"{worst}.png"
        losses = [worst, 0.3, 0.4]
        plot.learning_curve([{"step": i, "train_loss": v, "validation_loss": v} for i, v in enumerate(losses)], path)
        pictures.append(imread(path))
    assert pictures[0].shape == pictures[1].shape == (480, 840, 4)
    assert not np.array_equal(*pictures)


def test_a_scorecard_has_three_pictures_that_follow_its_numbers(tmp_path: Path) -> None:
    names = [f"old-{what}.png" for what in ("confusion", "reliability", "slices")]
    for right in (30, 50):
        folder = tmp_path / str(right)
        folder.mkdir()
        plot.scorecard("old", card(right), folder)
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert not np.array_equal(imread(tmp_path / "30" / name), imread(tmp_path / "50" / name))


def test_what_is_not_known_is_not_drawn(tmp_path: Path) -> None:
    plot.scorecard("new", score(["a"], ["b"], ["a", "b"], resamples=5), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new-confusion.png"]
