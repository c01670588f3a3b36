from __future__ import annotations

import pandas as pd
import pytest

from jobs.evaluation import slices
from jobs.evaluation.slices import BY, TOPIC

LABELS = ["bad", "good"]


def rows(**groups: tuple[int, int]) -> pd.DataFrame:
    """`right` of `count` right in each group; all rows are `good`."""
    made = [
        {"true": "good", "label": "good" if i < right else "bad", f"{BY}country": name}
        for name, (right, count) in groups.items()
        for i in range(count)
    ]
    return pd.DataFrame(made)


def test_slices_come_worst_first_and_small_ones_last() -> None:
    found = slices.slices(rows(de=(45, 50), fr=(20, 40), li=(0, 3)), LABELS, 30)
    assert [(s.value, s.rows, s.accuracy, s.enough) for s in found] == [
        ("fr", 40, 0.5, True),
        ("de", 50, 0.9, True),
        ("li", 3, 0.0, False),
    ]
    assert found[0].low < 0.5 < found[0].high
    assert found[0].predicted == {"bad": 0.5, "good": 0.5}


def test_rows_without_a_value_are_in_no_slice() -> None:
    found = rows(de=(45, 50)).assign(**{f"{BY}country": ""})
    assert slices.slices(found, LABELS, 30) == ()


def test_a_gap_is_between_the_best_and_the_worst_that_have_enough_rows() -> None:
    (gap,) = slices.gaps(slices.slices(rows(de=(45, 50), fr=(20, 40), li=(0, 3)), LABELS, 30))
    assert (gap.column, gap.best, gap.worst) == ("country", "de", "fr")
    assert gap.accuracy == pytest.approx(0.4)
    assert gap.predicted == pytest.approx(0.4)
    assert gap.p_value < 1e-3


def test_equal_slices_have_no_gap_that_is_not_chance() -> None:
    for right in (36, 40):
        (gap,) = slices.gaps(slices.slices(rows(de=(right, 40), fr=(right, 40)), LABELS, 30))
        assert (gap.accuracy, gap.p_value) == (0, 1)


def test_a_single_slice_and_topics_have_no_gap() -> None:
    one = rows(de=(45, 50))
    assert slices.gaps(slices.slices(one, LABELS, 30)) == ()
    topics = rows(de=(45, 50), fr=(20, 40)).rename(columns={f"{BY}country": f"{BY}{TOPIC}"})
    assert slices.gaps(slices.slices(topics, LABELS, 30)) == ()
