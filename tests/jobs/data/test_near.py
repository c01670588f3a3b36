from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from jobs.data.near import grams, jaccard, pairs, repeats, twins

keys = st.lists(st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join), max_size=12)
thresholds = st.sampled_from([0.05, 0.3, 0.5, 0.55, 0.7, 0.9, 1.0])


@given(keys, keys, thresholds)
def test_no_pair_is_missed_and_no_key_is_returned_without_one(known, given_keys, threshold) -> None:
    found = repeats(given_keys, threshold, known)
    kept = [key for at, key in enumerate(given_keys) if at not in found]
    assert all(jaccard(grams(a), grams(b)) < threshold for a, b in combinations(kept, 2))
    assert all(jaccard(grams(a), grams(b)) < threshold for a in kept for b in known)
    for at in found:
        earlier = [*known, *(key for i, key in enumerate(given_keys[:at]) if i not in found)]
        assert any(jaccard(grams(given_keys[at]), grams(other)) >= threshold for other in earlier)


def test_a_similarity_just_at_the_threshold_counts() -> None:
    words = [f"w{i}" for i in range(22)]
    longer, shorter = " ".join(words), " ".join(words[:13])
    assert jaccard(grams(longer), grams(shorter)) == 0.55
    assert repeats([longer, shorter], 0.55) == [1]


@given(keys, thresholds)
def test_every_pair_is_found_once(given_keys, threshold) -> None:
    sets = [grams(key) for key in given_keys]
    near = [(a, b) for a, b in combinations(range(len(sets)), 2) if jaccard(sets[a], sets[b]) >= threshold]
    assert sorted(pairs(given_keys, threshold)) == near


@given(keys, keys, thresholds)
def test_what_repeats_has_a_twin_that_stays(known, given_keys, threshold) -> None:
    both = [*given_keys, *known]  # so that a negative position counts from the end of `known`
    for at, twin in twins(given_keys, threshold, known).items():
        assert jaccard(grams(both[at]), grams(both[twin])) >= threshold
        assert twin < at
        assert twin not in twins(given_keys, threshold, known)
