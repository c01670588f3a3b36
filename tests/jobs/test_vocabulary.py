from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.vocabulary import vocabulary, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic!", ["don't", "panic"]),
        ("don\u2019t", ["don't"]),
        ("2024 was :-) GREAT, great", ["was", "great", "great"]),
        ("naïve Straße", ["naïve", "straße"]),
        ("''' 12 _", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@given(st.lists(st.text(max_size=40), max_size=8))
def test_the_vocabulary_holds_every_word_once_in_order(texts):
    found = vocabulary(texts)
    assert found == sorted(set(found))
    assert {word for text in texts for word in words(text)} == set(found)
