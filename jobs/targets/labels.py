"""Any number of the known labels at once: `sports|politics`, in the order of the alphabet; `none` for no label.

A cell holds the names with `|` between them, a JSON list, or a list as Parquet and JSONL have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jobs.evaluation.metrics import ratio
from jobs.inputs import texts

from . import EXACT_MATCH, Found, Metric, Values, exact_match, f1

NAME, CLOSED, LISTED, LEAST = "labels", False, True, 1

SEPARATOR, NOTHING = "|", "none"


def joined(names: Sequence[str]) -> str:
    """A set of labels as a target."""
    return SEPARATOR.join(sorted(set(names))) or NOTHING


def read(value: object) -> str:
    """Raises ValueError for a list that holds something else than names."""
    if isinstance(value, list | tuple | np.ndarray):
        names: list[object] = list(value)
    else:
        text = texts.cell(value)
        if not text:
            return ""
        names = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(SEPARATOR)]
    if not all(isinstance(name, str) and name and SEPARATOR not in name for name in names):
        raise ValueError(f"{str(value)[:40]!r} is no list of labels: names with {SEPARATOR!r} between them")
    return joined([str(name) for name in names if name != NOTHING])


def parts(target: str) -> list[str]:
    """The labels of the set."""
    return [] if target in {NOTHING, ""} else target.split(SEPARATOR)


def found(target: str) -> frozenset[Found]:
    """The labels of the set."""
    return frozenset((name, None) for name in parts(target))


def fault(target: str, labels: Sequence[str]) -> str:
    """The first name that is none of the labels, or another order than the alphabet's."""
    unknown = [name for name in parts(target) if name not in labels]
    if unknown:
        return f"{unknown[0][:80]!r} is no label; labels are {', '.join(labels)}"
    return "" if target == joined(parts(target)) else f"{target[:80]!r} is written {joined(parts(target))[:80]!r}"


def watched(targets: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """How many labels there are, and for each label whether it is among them (0 or 1)."""
    sets = [set(parts(target)) for target in targets]
    frame = {"labels given": [float(len(names)) for names in sets]}
    return pd.DataFrame(frame | {f"label {label}": [float(label in names) for names in sets] for label in labels})


def _macro(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
    """(models, rows, 2 x labels): hits, then true and predicted together, of each label."""
    names = sorted({name for each in (true, *predicted) for target in each for name in parts(target)})

    def marks(targets: Sequence[str]) -> Values:
        return np.array([[float(name in parts(target)) for name in names] for target in targets])

    wanted = marks(true)
    return np.array([np.hstack([wanted * given, wanted + given]) for given in map(marks, predicted)])


def _macro_f1(sums: Values) -> Values:
    half = sums.shape[-1] // 2
    occurs = sums[..., half:] > 0
    return ratio(ratio(2 * sums[..., :half], sums[..., half:]).sum(-1), occurs.sum(-1).astype(float))


METRICS = {
    "micro_f1": f1(found),
    "macro_f1": Metric(_macro, _macro_f1),
    EXACT_MATCH: exact_match,
}
