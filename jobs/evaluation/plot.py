"""Pictures of a Scorecard, as PNG."""

from __future__ import annotations

from pathlib import Path

from .calibration import Calibration
from .scorecard import Scorecard

_DARK = 0.6
_SLICES = 40


def scorecard(name: str, card: Scorecard, folder: Path) -> None:
    """`NAME-confusion.png`, `NAME-reliability.png`, `NAME-slices.png` of a Scorecard that has what they show."""
    if card.confusion:
        confusion(card, folder / f"{name}-confusion.png")
    if card.calibration is not None:
        reliability(card.calibration, folder / f"{name}-reliability.png")
    if card.slices:
        slices(card, folder / f"{name}-slices.png")


def confusion(card: Scorecard, path: Path) -> None:
    """Rows by true and predicted label; the shade is the share of the true label's rows."""
    from matplotlib.figure import Figure

    count = len(card.labels)
    shares = [[n / max(1, sum(row)) for n in row] for row in card.confusion]
    side = 2.5 + 0.6 * count
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(card.confusion):
        for j, n in enumerate(row):
            axes.text(j, i, f"{n:,}", ha="center", va="center", color="white" if shares[i][j] > _DARK else "black")
    axes.set_xticks(range(count), card.labels, rotation=45, ha="right")
    axes.set_yticks(range(count), card.labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{card.rows} test rows")
    figure.savefig(path, dpi=120)


def reliability(found: Calibration, path: Path) -> None:
    """Accuracy against confidence, a point a bin of equally many rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], linestyle=":", color="gray", label="confidence is the chance of being right")
    axes.plot([b.confidence for b in found.bins], [b.accuracy for b in found.bins], marker="o", label="measured")
    lowest = min(min(b.confidence, b.accuracy) for b in found.bins)
    axes.set(
        xlim=(max(0, lowest - 0.05), 1.02),
        ylim=(max(0, lowest - 0.05), 1.02),
        xlabel="confidence",
        ylabel="accuracy",
        title=f"calibration error {found.error:.3f} ({found.by_chance:.3f} can be chance)",
    )
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)


def slices(card: Scorecard, path: Path) -> None:
    """Accuracy of each slice with its interval, worst on top, and that of all rows as a line."""
    from matplotlib.figure import Figure

    shown = card.slices[:_SLICES]
    figure = Figure(figsize=(8, 1.5 + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for at, part in enumerate(shown):
        shade = "C0" if part.enough else "lightgray"
        axes.plot([part.low, part.high], [at, at], color=shade)
        axes.plot(part.accuracy, at, marker="o", color=shade)
    axes.axvline(card.accuracy, linestyle=":", color="gray", label="all rows")
    axes.set_yticks(range(len(shown)), [f"{s.name} ({s.rows})" for s in shown])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, 95% interval; gray has too few rows to judge by")
    figure.legend(loc="outside upper right")
    figure.savefig(path, dpi=120)
