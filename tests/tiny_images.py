"""A tiny real ViT and pictures it can learn in seconds: scikit-learn's handwritten digits, 8 x 8 pixels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples import digits_data
from jobs import specfile, tasks
from jobs.inputs import images
from jobs.spec import Spec

TASK = tasks.get("image-classification")
LABELS = ("0", "1", "4")


def pictures(count: int) -> list[tuple[Image.Image, str]]:
    """The first `count` different digits that are one of LABELS, as grey pictures."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = np.flatnonzero(np.isin(data.target, [int(label) for label in LABELS]))[:count]
    return [(Image.fromarray((data.images[i] * 15.9).astype(np.uint8)), str(data.target[i])) for i in chosen]


def inputs(count: int) -> list[tuple[str, str]]:
    return [(images.encoded(picture), label) for picture, label in pictures(count)]


def write(folder: Path, count: int) -> Path:
    """PNG files beside a CSV that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        for at, (picture, label) in enumerate(pictures(count)):
            picture.save(folder / f"{at}.png")
            writer.writerow([f"{at}.png", label])
    return folder / "data.csv"


def base_model(folder: Path) -> Path:
    """ViT with two layers of width 32 over 16 patches; the same weights every time."""
    return digits_data.untrained_vit(folder, side=16, width=32, layers=2, heads=2)


def tree(data: Path, model: Path) -> dict[str, Any]:
    """A spec as plain values."""
    return {
        "name": "digits",
        "task": "image-classification",
        "base_model": str(model),
        "data": {"source": str(data), "input": "image"},
        "training": {
            "epochs": 24,
            "learning_rate": 0.005,
            "patience": 24,
            "micro_batch_size": 16,
            "global_batch_size": 32,
        },
        "method": {"dropout": 0},
        "evaluation": {"bootstrap": 50, "robustness_rows": 20, "topics": 2},
        "serving": {"port": 0, "flush_seconds": 0.2, "poll_seconds": 0.2},
    }


def spec(folder: Path, model: Path, count: int = 300) -> Spec:
    return specfile.parse(tree(write(folder, count), model))
