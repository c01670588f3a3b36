from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.audit.labels import doubts


def planted(rows: int, classes: int, share: float, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """Overlapping Gaussian clouds (about 0.9 can be told), their labels, and which of these were flipped."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, classes, rows)
    vectors = draw.normal(size=(rows, 16)).astype(np.float32)
    vectors[np.arange(rows), true] += 2.5
    flipped = np.zeros(rows, bool)
    flipped[draw.choice(rows, round(rows * share), replace=False)] = True
    labels = np.where(flipped, (true + draw.integers(1, classes, rows)) % classes, true)
    return vectors, labels, flipped


@pytest.mark.parametrize("classes", [2, 4])
def test_flipped_labels_are_among_the_most_doubtful(classes: int) -> None:
    vectors, labels, flipped = planted(1200, classes, 0.05)
    found = doubts(vectors, labels, 5, 0)
    top = found.most_doubtful(0.1)
    assert len(top) == 120
    assert flipped[top].sum() >= 0.8 * flipped.sum()
    assert flipped[found.wrong].mean() > 4 * 0.05
    assert (found.suggested[found.wrong] != labels[found.wrong]).all()
    assert list(found.doubt[top]) == sorted(found.doubt[top], reverse=True)


def test_the_same_rows_and_seed_give_the_same_doubts() -> None:
    vectors, labels, _ = planted(200, 2, 0.05)
    assert np.array_equal(doubts(vectors, labels, 5, 3).doubt, doubts(vectors, labels, 5, 3).doubt)


def test_a_label_with_one_row_is_not_judged_and_never_sent_out() -> None:
    vectors, labels, _ = planted(60, 2, 0)
    labels[7] = 2
    found = doubts(vectors, labels, 5, 0)
    assert list(np.flatnonzero(~found.judged)) == [7]
    assert not found.wrong[7]
    assert 7 not in found.most_doubtful(1.0)
    assert len(found.most_doubtful(1.0)) == 59


def test_a_label_with_fewer_rows_than_folds_is_judged() -> None:
    vectors, labels, _ = planted(60, 2, 0)
    labels[[3, 4]] = 2
    assert doubts(vectors, labels, 5, 0).judged.all()


def test_a_draw_of_many_rows_judges_all_of_them() -> None:
    vectors, labels, flipped = planted(400, 2, 0.05)
    found = doubts(vectors, labels, 4, 0, most=100)
    assert (found.doubt > 0).all()
    assert flipped[found.most_doubtful(0.1)].sum() >= 0.7 * flipped.sum()
