from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.vocabulary import words
from monitoring.descriptors import unknown_share


@pytest.mark.parametrize(
    ("text", "share"), [("good GOOD night", 0.0), ("good zzyzx", 0.5), ("zzyzx", 1.0), ("", 0.0), ("12 :-)", 0.0)]
)
def test_unknown_share(text, share):
    assert unknown_share(text, frozenset({"good", "night"})) == share


@given(st.text(max_size=60), st.frozensets(st.sampled_from("abc"), max_size=3))
def test_a_text_is_all_known_in_its_own_vocabulary_and_a_share_stays_a_share(text, known):
    assert unknown_share(text, frozenset(words(text))) == 0
    assert 0 <= unknown_share(text, known) <= 1
