from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitoring.labels.acquisition import choose, novelty, uncertainty, weight

SLOW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def candidates(draw):
    """Points of which many may agree, weights of which many may be 0, and which of them are the same input."""
    count, seed = draw(st.integers(1, 30)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    points = rng.integers(0, draw(st.integers(1, 9)), (count, 3)).astype(np.float32)
    weights = np.round(rng.random(count), draw(st.integers(0, 3)))
    return points, weights, rng.integers(0, draw(st.integers(1, count)), count)


@SLOW
@given(candidates(), st.integers(1, 40), st.integers(0, 5))
def test_as_many_rows_as_asked_for_none_twice_and_the_same_for_a_seed(given, rows, seed):
    made = choose(*given, rows, seed)
    assert len(made.rows) == len(made.like) == min(rows, len(given[0]))
    assert len(set(made.rows)) == len(made.rows)
    assert made.like.min() >= 1
    again = choose(*given, rows, seed)
    assert (made.rows.tolist(), made.like.tolist()) == (again.rows.tolist(), again.like.tolist())


@SLOW
@given(candidates(), st.integers(1, 40))
def test_an_input_is_taken_twice_only_when_no_other_is_left(given, rows):
    same = given[2]
    taken = same[choose(*given, rows).rows]
    assert len(set(taken)) == min(rows, len(set(same)))


@SLOW
@given(candidates(), st.integers(1, 40))
def test_the_heaviest_come_first(given, rows):
    weights = given[1][choose(*given, rows).rows]
    assert (np.diff(weights) <= 0).all()


def test_each_crowd_sends_one_and_says_how_many_it_stands_for():
    rng = np.random.default_rng(0)
    centres, sizes = np.array([[0, 0], [9, 0], [0, 9]]), [20, 5, 3]
    points = np.concatenate([rng.normal(at, 0.1, (n, 2)) for at, n in zip(centres, sizes, strict=True)])
    weights = np.linspace(1, 0.5, len(points))
    made = choose(points.astype(np.float32), weights, np.arange(len(points)), 3)
    assert np.repeat([0, 1, 2], sizes)[made.rows].tolist() == [0, 1, 2]
    assert made.like.tolist() == sizes


def test_weights_pull_the_choice():
    """One crowd, heavy on its left: what is chosen is heavier than a row is on average."""
    points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    weights = 1 / (1 + np.exp(4 * points[:, 0]))
    chosen = choose(points, weights, np.arange(400), 20).rows
    assert weights[chosen].mean() > weights.mean() + 0.1


def test_uncertainty_is_one_less_the_margin_of_the_two_likeliest():
    scores = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
    assert uncertainty(scores) == pytest.approx([1, 0, 0.8])


def test_novelty_is_measured_by_how_near_the_reference_rows_are_to_each_other():
    reference = np.arange(10, dtype=np.float32)[:, None]
    found = novelty(np.array([[3.0], [3.4], [50.0]], np.float32), reference)
    assert found.tolist() == [0, 0, 1]
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(3000, 4)).astype(np.float32)
    assert novelty(rng.normal(size=(500, 4)).astype(np.float32), alike).mean() == pytest.approx(0.5, abs=0.07)
    assert novelty(alike[:3], alike[:1]).tolist() == [0, 0, 0]


def test_the_new_and_the_uncertain_weigh_more():
    assert weight(np.array([1.0, 1.0, 0.2]), np.array([1.0, 0.0, 1.0])).tolist() == [1.0, 0.5, 0.2]
