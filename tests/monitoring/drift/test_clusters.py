from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from examples import sentiment_data
from jobs.inputs.texts import words
from monitoring.drift.clusters import find

LEVEL = 0.0005


def rows(points, text="a b", label="pos") -> pd.DataFrame:
    points = np.asarray(points, np.float32)
    texts = [f"{text} {i}" for i in range(len(points))]
    return pd.DataFrame(
        {"input": texts, "true": label, "label": label, "confidence": 0.9, "embedding": list(points)},
    )


def blob(count: int, at: float, rng: np.random.Generator):
    return rng.normal(size=(count, 4)) + at


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_only_the_window_has_is_a_group_with_its_own_examples(rng):
    reference = rows(blob(200, 0, rng), "old")
    window = pd.concat([rows(blob(60, 0, rng), "old"), rows(blob(40, 9, rng), "strange", "neg")], ignore_index=True)
    first, *rest = find(reference, window, LEVEL, words)
    assert first.moved and first.grew
    assert first.now.rows and set(first.now.rows) == set(range(60, 100))
    assert (first.now.share, first.now.label, first.before.rows, first.before.label) == (0.4, "neg", (), None)
    assert first.before.confidence is None and first.before.examples == ()
    assert len(first.now.examples) == 3 and all(text.startswith("strange") for text in first.now.examples)
    assert first.words == ("strange",)
    assert all(not group.grew for group in rest if group.moved)


def test_what_the_window_has_lost_is_a_group_too(rng):
    reference = pd.concat([rows(blob(100, 0, rng)), rows(blob(100, 9, rng), "gone")], ignore_index=True)
    lost = [group for group in find(reference, rows(blob(80, 0, rng)), LEVEL) if not group.now.rows]
    assert lost and all(group.moved and not group.grew and group.words == () for group in lost)
    assert all(text.startswith("gone") for group in lost for text in group.before.examples)


def test_examples_are_distinct_and_the_nearest_to_the_centre():
    window = rows([[0.0], [0.1], [0.1], [0.2], [0.3]]).assign(input=["a", "b", "b", "c", "d"])
    (group,) = find(rows([[0.0]] * 20), window, LEVEL)
    assert group.now.examples == ("a", "b", "c")
    assert group.now.rows == (0, 1, 2, 3, 4)


def test_right_answers_are_counted_where_labels_are_known():
    window = rows([[0.0]] * 4).assign(true=["pos", "neg", None, np.nan])
    (group,) = find(rows([[0.0]] * 4), window, LEVEL)
    assert (group.now.labelled, group.now.right, group.before.labelled) == (2, 1, 4)


def test_a_window_of_equal_rows_is_one_group_that_did_not_move():
    (group,) = find(rows(np.ones((200, 3))), rows(np.ones((100, 3))), LEVEL, words)
    assert (group.moved, group.p_value, group.change) == (False, 1.0, 0.0)


@given(st.integers(2, 90), st.integers(2, 90), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_every_row_is_in_one_group(m, n, seed):
    rng = np.random.default_rng(seed)
    groups = find(rows(blob(m, 0, rng)), rows(blob(n, 1, rng)), LEVEL)
    for side, count in (("before", m), ("now", n)):
        parts = [getattr(group, side) for group in groups]
        assert sorted(row for part in parts for row in part.rows) == list(range(count))
        assert sum(part.share for part in parts) == pytest.approx(1)


def test_the_order_of_rows_does_not_matter(rng):
    reference, window = rows(blob(150, 0, rng)), rows(blob(100, 0.5, rng))
    mixed = find(reference.sample(frac=1, random_state=1), window.sample(frac=1, random_state=2), LEVEL)
    assert [group.p_value for group in mixed] == [group.p_value for group in find(reference, window, LEVEL)]


@pytest.mark.long
def test_no_more_false_alarms_than_the_level_says(rng):
    runs, level, alarms = 100, 0.2, 0
    for _ in range(runs):
        found = find(rows(blob(150, 0, rng)), rows(blob(100, 0, rng)), level)
        alarms += any(group.moved for group in found)
    assert 0 < alarms <= binom.ppf(0.9999, runs, level)


@pytest.mark.skipif(not (sentiment_data.FOLDER / "movies.csv").exists(), reason="the data is not downloaded")
def test_movie_reviews_among_tweets_are_found_and_shown():
    """Real texts under a cheap embedding: two windows in five are movie reviews, of which the reference has none."""
    tweets, movies = (
        pd.DataFrame(sentiment_data.read(sentiment_data.FOLDER / f"{domain}.csv")).sample(n, random_state=0)
        for domain, n in (("tweets", 650), ("movies", 100))
    )
    both = pd.concat([tweets, movies], ignore_index=True).rename(columns={"text": "input", "label": "true"})
    counts = TfidfVectorizer(sublinear_tf=True, max_features=3000).fit_transform(both["input"])
    points = normalize(TruncatedSVD(30, random_state=0).fit_transform(counts))
    both = both.assign(label=both["true"], confidence=0.9, embedding=list(points.astype(np.float32)))
    found = find(both[:500], both[500:].reset_index(drop=True), LEVEL, words)
    grown = [group for group in found if group.moved and group.grew]
    assert grown
    for group in grown:
        assert np.mean([row >= 150 for row in group.now.rows]) > 0.6
        assert set(group.now.examples) <= set(movies["text"])
        assert set(group.before.examples) <= set(tweets["text"])
    said = {word for group in grown for word in group.words}
    assert said and all(_share(movies["text"], word) > _share(tweets["text"], word) for word in said)


def _share(texts, word):
    return np.mean([word in words(text) for text in texts])
