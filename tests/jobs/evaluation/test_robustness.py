from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from jobs.evaluation import robustness
from jobs.inputs import texts
from jobs.tasks.task import Output


class Shouting:
    """Says `loud` of a text in capitals."""

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        labels = ["loud" if text.isupper() else "calm" for text in texts]
        return [Output(label, 1.0, {label: 1.0}, np.zeros(2, np.float32)) for label in labels]


def answered(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"input": texts, "true": "calm", "label": [o.label for o in Shouting()(texts)]})


def test_it_counts_what_changes_and_what_that_costs() -> None:
    rows = answered([f"a quiet day number {i}" for i in range(90)])
    found = {r.change: r for r in robustness.measure(Shouting(), rows, texts.CHANGES, 60)}
    assert set(found) == {"typos", "case", "punctuation"}
    assert {r.rows for r in found.values()} == {60}
    assert {r.accuracy_before for r in found.values()} == {1}
    assert (found["typos"].accuracy, found["typos"].changed, found["typos"].touched) == (1, 0, pytest.approx(60, abs=8))
    case = found["case"]
    assert 0 < case.changed < 1
    assert case.accuracy == pytest.approx(1 - case.changed)
    assert list(found.values()) == list(robustness.measure(Shouting(), rows, texts.CHANGES, 60))


def test_it_can_be_left_out() -> None:
    assert robustness.measure(Shouting(), answered(["x"]), texts.CHANGES, 0) == ()
