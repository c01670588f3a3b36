"""Per-row text descriptors: what of a text is watched beside its embedding.

Length and non-letter share are Evidently's own. Its `OOVWordsPercentage` asks a corpus that it downloads whether a word
is English; here a word is known when the model was trained on it, which says more and needs no network.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from jobs.vocabulary import words

LENGTH = "text length"
NON_LETTER = "non-letter share"
UNKNOWN = "unknown-word share"
DESCRIPTORS = (LENGTH, NON_LETTER, UNKNOWN)


def unknown_share(text: str, known: AbstractSet[str]) -> float:
    """Share (0..1) of a text's words that are not in `known` (lower-cased words); 0 for a text without words."""
    found = words(text)
    return sum(word not in known for word in found) / len(found) if found else 0.0
