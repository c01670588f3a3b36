"""Holdouts as two models answer them: planted by hand, or drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jobs.evaluation.slices import BY


def planted(both: int, won: int, lost: int, neither: int = 0, part: str = "old", **columns: str) -> pd.DataFrame:
    """Rows that both models have right, only the challenger, only the champion, and none."""
    right = [(True, True)] * both + [(False, True)] * won + [(True, False)] * lost + [(False, False)] * neither
    return frame(np.array(right), part, **columns)


def drawn(
    rng: np.random.Generator, rows: int, champion: float, challenger: float, correlation: float = 0.5, **columns: str
) -> pd.DataFrame:
    """Two models of given accuracies. `correlation` is that of one being right with the other being right.

    Two models of one base and mostly the same data are right on much the same rows: 0.63 to 0.86 on the tweets of the
    example, as `bench/gate.py` measures. At 0.5, 0.88 against 0.91, one alone is right on 9.5% of the rows.
    """
    spread = np.sqrt(champion * (1 - champion) * challenger * (1 - challenger))
    both = champion * challenger + correlation * spread
    shares = [both, champion - both, challenger - both, 1 - champion - challenger + both]
    kinds = rng.choice(4, rows, p=shares)
    return frame(np.column_stack([kinds < 2, (kinds == 0) | (kinds == 2)]), "old", **columns)


def frame(right: np.ndarray, part: str, **columns: str) -> pd.DataFrame:
    """`right`, (rows, 2): whether champion and challenger are right. `columns` are slices."""
    true, wrong = (np.resize(labels, len(right)) for labels in (["pos", "neg"], ["neg", "pos"]))
    champion, challenger = (np.where(right[:, i], true, wrong) for i in (0, 1))
    made = pd.DataFrame({"true": true, "champion": champion, "challenger": challenger, "slice": part})
    return made.assign(**{BY + name: value for name, value in columns.items()})
