"""Remedies for rare labels: weights for the loss, or rows repeated. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

_RARE = 1 / 3  # of the commonest label's rows: with fewer a label is rare


def rare(labels: pd.Series[str]) -> dict[str, float]:
    """Labels with less than a third of the commonest one's rows, with their share of all rows."""
    counts = labels.value_counts()
    return {str(label): int(n) / len(labels) for label, n in counts.items() if n < counts.iloc[0] * _RARE}


def class_weights(labels: pd.Series[str], order: Sequence[str]) -> tuple[float, ...]:
    """One weight a label, n / (k * n_label) (King & Zeng 2001; scikit-learn's "balanced"): 1 on average over the rows.

    A label without a row weighs 1: only validation can meet it.
    """
    counts = labels.value_counts()
    return tuple(len(labels) / (len(counts) * int(counts[label])) if label in counts else 1.0 for label in order)


def oversample(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every row, and of each rarer label enough of them again that all labels have as many as the commonest.

    A label's rows are repeated whole before a part of them is drawn: none of them comes twice more than another.
    """
    most = int(rows["label"].value_counts().max())
    parts = [rows]
    for _, mine in rows.groupby("label", sort=True):
        whole, rest = divmod(most - len(mine), len(mine))
        parts += [mine] * whole
        parts.append(mine.sample(rest, random_state=seed))
    return pd.concat(parts)
