from __future__ import annotations

import random
import string
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.evaluation import robustness
from jobs.predictor import Output


class Shouting:
    """Says `loud` of a text in capitals."""

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        labels = ["loud" if text.isupper() else "calm" for text in texts]
        return [Output(label, 1.0, {label: 1.0}, np.zeros(2, np.float32)) for label in labels]


def answered(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"input": texts, "true": "calm", "label": [o.label for o in Shouting()(texts)]})


@given(st.text(), st.integers(0, 100))
def test_what_a_person_reads_stays(text: str, seed: int) -> None:
    draw = random.Random(seed)
    assert robustness.case(text, draw).casefold() == text.casefold() or not text.isascii()
    assert len(robustness.typos(text, draw).split()) == len(text.split())
    bare = str.maketrans("", "", string.punctuation)
    changed = robustness.punctuation(text, draw)
    assert changed.translate(bare).split() == text.translate(bare).split()


@given(st.from_regex(r"[a-z]{4,9}( [a-z]{1,9}){0,9}", fullmatch=True), st.integers(0, 100))
def test_a_typo_touches_a_long_word_and_neither_end_of_it(text: str, seed: int) -> None:
    changed = robustness.typos(text, random.Random(seed))
    for word, now in zip(text.split(" "), changed.split(" "), strict=True):
        assert (word[0], word[-1]) == (now[0], now[-1])
        assert len(word) >= 4 or word == now
        assert abs(len(word) - len(now)) <= 1


def test_it_counts_what_changes_and_what_that_costs() -> None:
    rows = answered([f"a quiet day number {i}" for i in range(90)])
    found = {r.change: r for r in robustness.measure(Shouting(), rows, 60)}
    assert set(found) == {"typos", "case", "punctuation"}
    assert {r.rows for r in found.values()} == {60}
    assert {r.accuracy_before for r in found.values()} == {1}
    assert (found["typos"].accuracy, found["typos"].changed, found["typos"].touched) == (1, 0, pytest.approx(60, abs=8))
    case = found["case"]
    assert 0 < case.changed < 1
    assert case.accuracy == pytest.approx(1 - case.changed)
    assert list(found.values()) == list(robustness.measure(Shouting(), rows, 60))


def test_it_can_be_left_out() -> None:
    assert robustness.measure(Shouting(), answered(["x"]), 0) == ()
