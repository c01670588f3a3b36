from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.audit import text
from tests import tiny


def test_languages_are_told_and_what_cannot_be_told_is_left() -> None:
    texts = [
        "The weather was really lovely today and we went for a walk.",
        "Ich habe den Film gestern Abend gesehen und fand ihn langweilig.",
        "Le film était vraiment trop long et ennuyeux.",
        "ok :)",
        "",
    ]
    assert text.languages(texts) == ["en", "de", "fr", "", ""]


def test_the_commonest_language_is_what_texts_should_be_in() -> None:
    assert text.commonest(["en", "", "de", "en"]) == "en"
    assert text.commonest(["", ""]) == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("schön, naïve — fine “quotes” 🙂", ""),
        ("Ünïcödé is fine\tand so are\nlines", ""),
        ("schÃ¶n", "decoded with the wrong code page, meant is 'schön'"),
        ("itâ€™s fine", "decoded with the wrong code page"),
        ("sch\ufffdn", "a character was lost in decoding"),
        ("a\x00b", "control character U+0000"),
    ],
)
def test_wrong_decoding_is_told(given: str, said: str) -> None:
    assert text.encoding_fault(given).startswith(said)
    assert bool(text.encoding_fault(given)) == bool(said)


def test_lengths_are_whole_though_the_model_takes_less(base_model: Path) -> None:
    counted = text.lengths(tiny.TASK.processor(base_model), ["good day", "", "day " * 200], chunk=2)
    assert np.array_equal(counted, [4, 2, 202])
