"""Pictures of an audit, each as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.data.split import SPLITS

from .labels import Doubts

_MAPPED = 4000  # points that a map still shows apart
_COLOURS = ("#3b6fb6", "#d9822b", "#3a9b6b", "#b5473f", "#7d5ba6", "#8c6d3f", "#c765a0", "#6b6b6b")


def balance(rows: pd.DataFrame, labels: Sequence[str]) -> bytes:
    """Rows of each label, by split."""
    figure, axes = _new()
    at, width = np.arange(len(labels)), 0.8 / len(SPLITS)
    for i, split in enumerate(SPLITS):
        counts = rows["label"][rows["split"] == split].value_counts()
        axes.bar(at + i * width, [int(counts.get(label, 0)) for label in labels], width, label=split, color=_COLOURS[i])
    axes.set(ylabel="rows", title="labels by split")
    axes.set_xticks(at + width, labels, rotation=30 if len(labels) > 4 else 0)  # noqa: PLR2004 - more overlap
    axes.legend(frameon=False)
    return _png(figure)


def lengths(tokens: NDArray[np.int64], longest: int) -> bytes:
    """Tokens of each text, and where they are cut."""
    figure, axes = _new()
    step = 1 + int(tokens.max()) // 60  # whole tokens, or some bars hold more kinds of length than others
    axes.hist(tokens, bins=np.arange(0, tokens.max() + 2 * step, step), color=_COLOURS[0])
    axes.axvline(longest, color=_COLOURS[3], linestyle="--", label=f"cut at {longest}")
    axes.set(xlabel="tokens", ylabel="rows", title="length of texts")
    axes.legend(frameon=False)
    return _png(figure)


def doubt(doubts: Doubts, share: float) -> bytes:
    """How doubtful the labels are, and from where on they are sent out to be checked."""
    figure, axes = _new()
    axes.hist([doubts.doubt[~doubts.wrong], doubts.doubt[doubts.wrong]], bins=40, stacked=True, range=(0, 1),
              color=[_COLOURS[0], _COLOURS[3]], label=["fits", "taken for an error"])  # fmt: skip
    ranked = doubts.most_doubtful(share)
    if len(ranked):
        axes.axvline(doubts.doubt[ranked[-1]], color="black", linestyle="--", label=f"the most doubtful {share:.0%}")
    axes.set(xlabel="1 - probability of the given label", ylabel="rows", title="doubt about labels", yscale="log")
    axes.legend(frameon=False)
    return _png(figure)


def confusion(given: NDArray[np.int64], doubts: Doubts, labels: Sequence[str]) -> bytes:
    """Given label against the likelier one, of the labels taken for errors."""
    figure, axes = _new()
    table = np.zeros((len(labels), len(labels)), int)
    np.add.at(table, (given[doubts.wrong], doubts.suggested[doubts.wrong]), 1)
    axes.imshow(table, cmap="Oranges")
    for i, j in np.ndindex(table.shape):
        dark = table[i, j] > table.max() / 2
        axes.text(j, i, str(table[i, j]), ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 4 else 0)  # noqa: PLR2004 - more overlap
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="likelier label", ylabel="given label", title="labels taken for errors")
    return _png(figure)


def scatter(
    vectors: NDArray[np.float32],
    given: NDArray[np.int64],
    doubts: Doubts,
    far: NDArray[np.bool_],
    labels: Sequence[str],
    seed: int,
) -> bytes:
    """The two first principal components, of a draw of the rows when there are many."""
    from sklearn.decomposition import PCA

    draw = np.random.default_rng(seed)
    some = np.sort(draw.choice(len(given), min(len(given), _MAPPED), replace=False))
    points = PCA(2, random_state=seed).fit_transform(vectors[some])
    figure, axes = _new()
    for i, label in enumerate(labels):
        mine = points[given[some] == i]
        axes.scatter(*mine.T, s=6, alpha=0.5, color=_COLOURS[i % len(_COLOURS)], label=label)
    wrong = points[doubts.wrong[some]]
    axes.scatter(*wrong.T, s=28, facecolors="none", edgecolors="black", linewidths=0.7, label="label in doubt")
    axes.scatter(*points[far[some]].T, s=40, marker="x", color="black", label="outlier")
    axes.set(title="map of the texts (PCA of embeddings)", xticks=[], yticks=[])
    axes.legend(frameon=False, fontsize="small", ncols=2)
    return _png(figure)


def _new() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, dpi=110, format="png")
    return out.getvalue()
