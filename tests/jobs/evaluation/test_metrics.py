from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs

from jobs.evaluation import metrics

LABELS = ["a", "b", "c"]
pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60)


def counts(found) -> np.ndarray:
    return theirs.confusion_matrix([t for t, _ in found], [p for _, p in found], labels=range(3)).astype(np.int64)


@settings(max_examples=30)
@given(pairs)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_metrics_of_counts_are_scikit_learns(found) -> None:
    true, said = [t for t, _ in found], [p for _, p in found]
    expected = {
        "accuracy": theirs.accuracy_score(true, said),
        "macro_f1": theirs.f1_score(true, said, average="macro", zero_division=0.0),
        "balanced_accuracy": theirs.balanced_accuracy_score(true, said),
        "mcc": theirs.matthews_corrcoef(true, said),
    }
    assert set(expected) == set(metrics.METRICS)
    for name, value in expected.items():
        assert metrics.METRICS[name](metrics.tallies(counts(found))) == pytest.approx(value), name
        assert metrics.METRICS[name](metrics.tallies(counts(found)[None]))[0] == pytest.approx(value), name


@settings(max_examples=30)
@given(st.integers(2, 3), st.integers(0, 10_000), st.booleans())
def test_metrics_of_shares_are_scikit_learns(labels, seed, ties) -> None:
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.arange(labels), rng.integers(0, labels, 25)])
    shares = rng.dirichlet(np.ones(labels), len(true))
    if ties:
        shares = (shares * 4).round() + 1
        shares /= shares.sum(1, keepdims=True)
    weights = rng.integers(1, 4, (3, len(true)))
    score = shares[:, 1] if labels == 2 else shares
    for found, expected in (
        (
            metrics.roc_auc(true, shares, weights),
            [theirs.roc_auc_score(true, score, sample_weight=w, multi_class="ovr") for w in weights],
        ),
        (
            metrics.log_loss(true, shares, weights),
            [theirs.log_loss(true, shares, labels=range(labels), sample_weight=w) for w in weights],
        ),
    ):
        np.testing.assert_allclose(found, expected)


def test_a_resample_without_two_labels_has_no_area() -> None:
    shares = np.array([[0.2, 0.8], [0.6, 0.4]])
    areas = metrics.roc_auc(np.array([1, 0]), shares, np.array([[1, 1], [2, 0]]))
    assert areas[0] == 1
    assert np.isnan(areas[1])
