from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, ks_2samp

from monitoring.drift import compare
from monitoring.drift.compare import CHI_SQUARE, CLASSIFIER, EMBEDDING, KS, MMD, TOGETHER, Sample, samples


def drawn(rows: int, seed: int | list[int], *, embedded: bool = True) -> Sample:
    rng = np.random.default_rng(seed)
    columns = pd.DataFrame(
        {
            "length": rng.poisson(30, rows),
            "share": rng.random(rows),
            "label": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.39, 0.01]),
        }
    )
    return Sample(columns, rng.normal(size=(rows, 4)) if embedded else None)


def flagged(reference: Sample, current: Sample, level: float = 0.01) -> set[str]:
    return {column.name for column in samples(reference, current, level) if column.drifted}


def test_each_kind_of_column_has_its_test_and_its_share_of_the_level():
    found = samples(drawn(200, 0), drawn(80, 1), 0.05)
    assert [(column.name, column.method) for column in found] == [
        ("length", KS),
        ("share", KS),
        ("label", CHI_SQUARE),
        (EMBEDDING, MMD),
        (TOGETHER, CLASSIFIER),
    ]
    assert not any(column.drifted for column in found)
    assert {column.threshold for column in found if column.name != EMBEDDING} == {0.01}


def test_no_embedding_no_test_of_it():
    found = samples(drawn(50, 0, embedded=False), drawn(50, 1, embedded=False), 0.05)
    assert [column.name for column in found][-2:] == ["label", TOGETHER]
    assert found[0].threshold == pytest.approx(0.05 / 4)


def test_what_moved_is_flagged_by_name():
    reference, current = drawn(300, 0), drawn(300, 1)
    assert "length" in flagged(reference, Sample(current.columns.assign(length=40), current.embedding))
    new = current.columns.assign(label=current.columns["label"].replace("b", "d"))
    assert "label" in flagged(reference, Sample(new, current.embedding))
    assert EMBEDDING in flagged(reference, Sample(current.columns, current.embedding + 1))


def test_a_label_and_a_number_that_only_move_together_are_flagged():
    reference, current = drawn(500, 0, embedded=False), drawn(500, 1, embedded=False)
    tied = current.columns.sort_values("share", ignore_index=True)
    tied["label"] = tied["label"].sort_values(ignore_index=True)
    assert flagged(reference, Sample(tied)) == {TOGETHER}


@pytest.mark.parametrize("column", ["share", "label"])
def test_what_is_missing_is_a_value(column):
    reference, current = drawn(300, 0), drawn(300, 1)
    holes = current.columns.copy()
    holes.loc[::3, column] = None
    assert column in flagged(reference, Sample(holes, current.embedding))
    both = reference.columns.copy()
    both.loc[::3, column] = None
    assert column not in flagged(Sample(both, reference.embedding), Sample(holes, current.embedding))


def test_a_truth_value_is_a_category():
    frame = pd.DataFrame({"seen": [True, False] * 40})
    assert samples(Sample(frame), Sample(frame), 0.05)[0].method == CHI_SQUARE


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05])
def test_of_many_rows_the_test_is_scipys_with_ties_and_without(decimals, shift):
    rng = np.random.default_rng(5)
    reference, current = (np.round(rng.normal(at, 1, rows), decimals) for at, rows in ((0, 12_000), (shift, 15_000)))
    exact = ks_2samp(reference, current, method="asymp").pvalue
    assert compare.ks(reference, current) == pytest.approx(exact, rel=0.02)


@pytest.mark.long
def test_the_family_holds_its_level():
    """200 pairs of samples of one distribution, at a rate that can be counted."""
    rate, runs = 0.1, 200
    rung = sum(bool(flagged(drawn(90, [0, run]), drawn(40, [1, run]), rate)) for run in range(runs))
    assert 0 < rung <= binom.ppf(0.9999, runs, rate)


def test_many_rows_are_all_compared_and_the_kernel_gets_few():
    reference, current = drawn(30_000, 0), drawn(20_000, 1)
    found = {column.name: column for column in samples(reference, current, 0.05)}
    exact = ks_2samp(reference.columns["share"], current.columns["share"], method="asymp").pvalue
    assert found["share"].p_value == pytest.approx(exact, rel=0.01)
    few = [Sample(side.columns, side.embedding).drawn(compare.MOST_ROWS) for side in (reference, current)]
    assert [len(side.columns) for side in few] == [compare.MOST_ROWS] * 2
    assert found[EMBEDDING] == {column.name: column for column in samples(*few, 0.05)}[EMBEDDING]
