"""How far down the right one of many known texts is: recall and reciprocal rank at ten, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.spec import EvaluationSpec
from jobs.targets.passage import AT
from jobs.tasks.task import Output

from .scorecard import Interval, interval

RANK = "rank"


def ranks(true: Sequence[str], outputs: Sequence[Output]) -> list[int]:
    """From 1, the place of each row's true text among its answer's scores; 0 where it is not among them."""
    told = [list(output.scores) for output in outputs]
    return [names.index(name) + 1 if name in names else 0 for name, names in zip(true, told, strict=True)]


def score(found: NDArray[np.int64], spec: EvaluationSpec, seed: int = 0) -> dict[str, Interval]:
    """`found`, (rows,), as `ranks` gives them."""
    rows = len(found)
    inverse = np.divide(1.0, found, where=found > 0, out=np.zeros(rows))
    each = {f"recall_at_{AT}": (found > 0) * 1.0, f"mrr_at_{AT}": inverse}
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=spec.bootstrap)
    return {name: interval(float(v.mean()), drawn @ v / rows, spec.confidence) for name, v in each.items()}
