"""The words of a text and the vocabulary of many, the same in training and in monitoring."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Letters of any script, with an apostrophe inside: "don't" is one word, "2024" and ":-)" are none.
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text, lower-cased, in their order, with repetitions."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Every word that occurs in the texts, once, sorted."""
    return sorted({word for text in texts for word in words(text)})
