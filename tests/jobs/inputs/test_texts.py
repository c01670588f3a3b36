from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.inputs import texts as texts_
from jobs.inputs.texts import unknown_share, vocabulary, words


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


@pytest.mark.parametrize(
    ("text", "share"), [("good GOOD night", 0.0), ("good zzyzx", 0.5), ("zzyzx", 1.0), ("", 0.0), ("12 :-)", 0.0)]
)
def test_unknown_share(text, share):
    assert unknown_share(text, frozenset({"good", "night"})) == share


@given(st.text(max_size=60), st.frozensets(st.sampled_from("abc"), max_size=3))
def test_a_text_is_all_known_in_its_own_vocabulary_and_a_share_stays_a_share(text, known):
    assert unknown_share(text, frozenset(words(text))) == 0
    assert 0 <= unknown_share(text, known) <= 1


@given(st.text(), st.integers(0, 100))
def test_what_a_person_reads_stays(text: str, seed: int) -> None:
    draw = random.Random(seed)
    assert texts_.case(text, draw).casefold() == text.casefold() or not text.isascii()
    assert len(texts_.typos(text, draw).split()) == len(text.split())
    bare = str.maketrans("", "", string.punctuation)
    changed = texts_.punctuation(text, draw)
    assert changed.translate(bare).split() == text.translate(bare).split()


@given(st.from_regex(r"[a-z]{4,9}( [a-z]{1,9}){0,9}", fullmatch=True), st.integers(0, 100))
def test_a_typo_touches_a_long_word_and_neither_end_of_it(text: str, seed: int) -> None:
    changed = texts_.typos(text, random.Random(seed))
    for word, now in zip(text.split(" "), changed.split(" "), strict=True):
        assert (word[0], word[-1]) == (now[0], now[-1])
        assert len(word) >= 4 or word == now
        assert abs(len(word) - len(now)) <= 1


def test_topics_are_found_named_and_the_same_again() -> None:
    texts = [f"the {food} soup was {word}" for food in ("onion", "tomato", "onion") for word in ("hot", "cold") * 5]
    texts += [f"my {part} computer {word}" for part in ("old", "new", "old") for word in ("crashes", "boots") * 5]
    found = texts_.topics(texts, 2)
    assert len(set(found)) == 2
    assert len(set(found[:30])) == len(set(found[30:])) == 1
    assert found[0].startswith("soup, ")
    assert "computer" in found[30]
    assert texts_.topics(texts, 2) == found


@pytest.mark.parametrize("texts", [["one two"] * 100, ["a few words"] * 5, [""] * 90, ["the of and"] * 90])
def test_texts_that_do_not_differ_or_are_few_have_no_topic(texts: list[str]) -> None:
    assert set(texts_.topics(texts, 5)) == {""}
