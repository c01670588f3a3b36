"""The learning curve: as a picture, as lines for a terminal, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Reports = Sequence[Mapping[str, float]]

_TRAIN, _VALIDATION, _BOTH = "t", "v", "x"
_TURNED = 0.02
"""Share by which validation loss must have risen above its best to have turned: less is how batches fall."""


def draw(reports: Reports, path: Path) -> None:
    """Train and validation loss over optimizer steps, with the best checkpoint marked, as PNG."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    steps = [r["step"] for r in reports]
    best = _best(reports)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, [r["train_loss"] for r in reports], marker="o", label="train loss")
    axes.plot(steps, [r["validation_loss"] for r in reports], marker="o", label="validation loss")
    axes.axvline(best["step"], linestyle=":", color="gray")
    axes.annotate("best", (best["step"], best["validation_loss"]), xytext=(4, 8), textcoords="offset points")
    axes.set(xlabel="optimizer step", ylabel="loss")
    axes.legend()
    figure.savefig(path, dpi=120)


def lines(reports: Reports, width: int = 64, height: int = 9) -> list[str]:
    """The same in letters, `t` and `v` for the two losses, `x` where they meet; the best checkpoint is under `^`.

    Empty where there are fewer than two reports: a point is no curve.
    """
    if len(reports) < 2:  # noqa: PLR2004
        return []
    steps = [r["step"] for r in reports]
    losses = [r[name] for r in reports for name in ("train_loss", "validation_loss") if math.isfinite(r[name])]
    low, high = min(losses), max(losses)
    cells = [[" "] * width for _ in range(height)]

    def across(step: float) -> int:
        return round((step - steps[0]) / (steps[-1] - steps[0]) * (width - 1))

    for name, mark in (("train_loss", _TRAIN), ("validation_loss", _VALIDATION)):
        for report in reports:
            if math.isfinite(report[name]):
                down = round((high - report[name]) / ((high - low) or 1) * (height - 1))
                row, at = cells[down], across(report["step"])
                row[at] = mark if row[at] in {" ", mark} else _BOTH
    margin = max(len(f"{value:.3f}") for value in (low, high))
    scale = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    made = [f"{scale.get(at, ''):>{margin}} |{''.join(row)}".rstrip() for at, row in enumerate(cells)]
    best = " " * across(_best(reports)["step"]) + "^ best"
    ends = f"step {steps[0]:g}", f"{steps[-1]:g}"
    return [
        *made,
        f"{'':>{margin}} +{'-' * width}",
        f"{'':>{margin}}  {best}",
        f"{'':>{margin}}  {ends[0]}{ends[1]:>{width - len(ends[0])}}   t train loss, v validation loss",
    ]


def told(reports: Reports) -> str:
    """What the curve says, and what to do: overfitting, a turn, a loss that was still falling, or nothing of these."""
    best, last = _best(reports), reports[-1]
    stopped = "; stopped early, the best checkpoint is kept" if last["stopped_early"] else ""
    if not math.isfinite(last["validation_loss"]):
        return "training diverged: lower training.learning_rate"
    went = f"training loss went {best['train_loss']:.3f} -> {last['train_loss']:.3f}"
    turned = f"validation loss turned after step {best['step']:g} ({best['validation_loss']:.3f} -> "
    turned += f"{last['validation_loss']:.3f}), {went}"
    if last["validation_loss"] > best["validation_loss"] * (1 + _TURNED) or stopped:
        if last["train_loss"] < best["train_loss"]:
            return f"{turned}: the model began to overfit{stopped or '; the best checkpoint is kept'}"
        return f"{turned}: training does not converge, try a lower learning rate{stopped}"
    before = [r["validation_loss"] for r in reports[:-1]]
    if before and last is best and last["validation_loss"] < min(before) * (1 - _TURNED):
        fell = f"{min(before):.3f} -> {last['validation_loss']:.3f}"
        return f"validation loss was still falling at the end ({fell}): more training.epochs may help"
    return f"validation loss settled at {best['validation_loss']:.3f} (step {best['step']:g})"


def _best(reports: Reports) -> Mapping[str, float]:
    return min(reports, key=lambda r: (not math.isfinite(r["validation_loss"]), r["validation_loss"]))
