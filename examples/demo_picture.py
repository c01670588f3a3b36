"""The demo's picture: accuracy over requests, with the shift, the alarm, the retraining and the promotion marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .traffic import Sent, Traffic

_WINDOW = 100
_COLOURS = {"shift": "tab:gray", "alarm": "tab:red", "retrain": "tab:orange", "promotion": "tab:green"}


def draw(traffic: Traffic, marks: Mapping[str, int], path: Path) -> None:
    """Rolling accuracy over the last 100 answers, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    start = 0
    for domain, sent in _stretches(traffic):
        right = np.array([s.right for s in sent], dtype=np.float64)
        mean = np.convolve(right, np.ones(_WINDOW), "valid") / _WINDOW if len(right) >= _WINDOW else np.array([])
        colour = "tab:blue" if domain == "tweets" else "tab:purple"
        axes.plot(np.arange(len(mean)) + start + _WINDOW, mean, color=colour)
        axes.text(start + len(right) / 2, 1.005, domain, ha="center", color=colour)
        axes.axvspan(start, start + len(right), color=colour, alpha=0.06, linewidth=0)
        start += len(right)
    for name, at in marks.items():
        axes.axvline(at, color=_COLOURS[name], linestyle="--")
        axes.annotate(name, (at, 0.49), xytext=(5, 0), textcoords="offset points", color=_COLOURS[name])
    axes.set(xlabel="requests", ylabel=f"accuracy over the last {_WINDOW}", xlim=(0, start), ylim=(0.48, 1.04))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _stretches(traffic: Traffic) -> list[tuple[str, list[Sent]]]:
    """Runs of one domain, in order: the rolling mean must not mix them."""
    runs: list[tuple[str, list[Sent]]] = []
    for sent in traffic.sent:
        domain = "tweets" if sent.phase.startswith("tweets") else "movies"
        if not runs or runs[-1][0] != domain:
            runs.append((domain, []))
        runs[-1][1].append(sent)
    return runs
