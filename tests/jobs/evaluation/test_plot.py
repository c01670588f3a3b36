from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread

from jobs.evaluation import plot
from jobs.evaluation.calibration import calibration
from jobs.evaluation.scorecard import Scorecard, score
from jobs.evaluation.slices import BY, slices


def card(right: int) -> Scorecard:
    rows = pd.DataFrame({"true": "a", "label": ["a"] * right + ["b"] * (60 - right), f"{BY}country": ["de", "fr"] * 30})
    return dataclasses.replace(
        score(list(rows["true"]), list(rows["label"]), ["a", "b"], resamples=5),
        calibration=calibration(np.linspace(0.5, 1, 60), (rows["label"] == "a").to_numpy()),
        slices=slices(rows, ["a", "b"], 30),
    )


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
