from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.audit.neighbours import neighbours, outliers


@given(st.integers(2, 40), st.integers(1, 3), st.integers(1, 12), st.integers(0, 99))
def test_tiles_give_what_the_whole_matrix_gives(rows: int, parts: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors, part = draw.normal(size=(rows, 6)).astype(np.float32), draw.integers(0, parts, rows)
    found = neighbours(vectors, part, count, tile=(7, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    nearest = -np.sort(-alike, axis=1)[:, : min(count, rows - 1)]
    np.testing.assert_allclose(found.distance, 1 - nearest.mean(1), atol=1e-5)
    for p in range(part.max() + 1):
        mine = np.where(part == p, alike, -np.inf)
        np.testing.assert_allclose(found.similarity[:, p], mine.max(1), atol=1e-5)
        there = found.nearest[:, p] >= 0
        assert np.array_equal(there, np.isfinite(mine.max(1)))
        np.testing.assert_allclose(alike[there, found.nearest[there, p]], mine.max(1)[there], atol=1e-5)


def test_a_planted_outlier_is_the_only_one() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(1, 0.3, size=(300, 64)).astype(np.float32)
    vectors[17, ::2] = -1
    far = outliers(neighbours(vectors, np.zeros(300, int), 10).distance, 8)
    assert list(np.flatnonzero(far)) == [17]


def test_rows_all_alike_have_no_outlier() -> None:
    found = neighbours(np.ones((20, 4), np.float32), np.zeros(20, int), 3)
    assert not outliers(found.distance, 5).any()
    np.testing.assert_allclose(found.similarity[:, 0], 1, atol=1e-6)
