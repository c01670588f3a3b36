"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def draw(reports: Sequence[Mapping[str, float]], path: Path) -> None:
    """Train and validation loss over optimizer steps, with the best checkpoint marked, as PNG."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    steps = [r["step"] for r in reports]
    best = min(reports, key=lambda r: r["validation_loss"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, [r["train_loss"] for r in reports], marker="o", label="train loss")
    axes.plot(steps, [r["validation_loss"] for r in reports], marker="o", label="validation loss")
    axes.axvline(best["step"], linestyle=":", color="gray")
    axes.annotate("best", (best["step"], best["validation_loss"]), xytext=(4, 8), textcoords="offset points")
    axes.set(xlabel="optimizer step", ylabel="loss")
    axes.legend()
    figure.savefig(path, dpi=120)
