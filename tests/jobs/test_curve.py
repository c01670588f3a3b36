from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from jobs import curve


def test_the_curve_is_drawn_and_follows_its_numbers(tmp_path: Path) -> None:
    pictures = []
    for worst in (0.5, 0.9):
        path = tmp_path / f"{worst}.png"
        losses = [worst, 0.3, 0.4]
        curve.draw([{"step": i, "train_loss": v, "validation_loss": v} for i, v in enumerate(losses)], path)
        pictures.append(imread(path))
    assert pictures[0].shape == pictures[1].shape == (480, 840, 4)
    assert not np.array_equal(*pictures)
