"""Is a new champion worse in production than the version before it? Both on the same labelled rows of production.

Looked at again as labels come in, so that each look may use only a part of the false alarm rate: the k-th one
1 / (k (k + 1)) of it, which add up to the whole (alpha spending, Lan & DeMets 1983).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from . import paired


@dataclass(frozen=True)
class Regression:
    """Accuracies of the champion and of version `previous` on `rows` rows; `p_value` of a loss at least this large.

    `look` counts from 1; `level` is what it may use; `worse` says that the loss is more than allowed and no chance.
    """

    previous: int
    look: int
    rows: int
    champion: float
    before: float
    p_value: float
    level: float
    worse: bool

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any] | None) -> Regression | None:
        return None if tree is None else cls(**tree)

    @property
    def said(self) -> str:
        found = (
            f"accuracy {self.champion:.3f}, version {self.previous} has {self.before:.3f} on the same {self.rows} rows"
        )
        verdict = "worse" if self.worse else "not shown to be worse"
        return f"{found}: {verdict}, p {self.p_value:.2g}, {self.level:.2g} allowed at look {self.look}"


def judge(
    rows: pd.DataFrame, previous: int, last: Regression | None, *, false_alarm_rate: float, max_loss: float
) -> Regression:
    """Of `rows` (true, champion, previous: labels), at least one; `last` is the look before this one."""
    right = {name: rows[name] == rows["true"] for name in ("champion", "previous")}
    champion, before = (float(right[name].mean()) for name in ("champion", "previous"))
    won, lost = (int((right[a] & ~right[b]).sum()) for a, b in (("champion", "previous"), ("previous", "champion")))
    look = 1 if last is None else last.look + 1
    level, p_value = false_alarm_rate / (look * (look + 1)), paired.mcnemar(lost, won)
    worse = champion < before - max_loss and p_value <= level
    return Regression(previous, look, len(rows), champion, before, p_value, level, worse)
