"""Texts as inputs: the same to a reader, their words, harmless changes, topics, descriptors.

Topics are clusters by TF-IDF, LSA and k-means, as scikit-learn has them. Evidently computes length and non-letter share
by itself; its `OOVWordsPercentage` asks a corpus that it downloads whether a word is English. Here a word is known when
the model was trained on it, which says more and needs no network.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import Change

NAME, UNIT = "text", "words"

LENGTH = "text length"
NON_LETTER = "non-letter share"
UNKNOWN = "unknown-word share"
DESCRIPTORS = (LENGTH, NON_LETTER, UNKNOWN)

# Letters of any script, with an apostrophe inside: "don't" is one word, "2024" and ":-)" are none.
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_KEY = re.compile(r"\w+")
_TYPO_SHARE = 0.15
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIMENSIONS = 30
_TYPICAL = 3
_ROWS_A_TOPIC = 20
_WIDE_VOCABULARY = 5000


def read(value: object, folder: Path) -> str:  # noqa: ARG001 - texts lie in no file of their own
    """The cell itself; messages of a conversation, as Parquet and JSONL have them, become JSON."""
    if isinstance(value, list | np.ndarray) and len(value) and all(isinstance(part, dict) for part in value):
        return json.dumps([{name: text for name, text in part.items() if text is not None} for part in value])
    return cell(value)


def cell(value: object) -> str:
    """A cell as a text: a missing one becomes "", which cleaning then reports; numbers keep their shortest form."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return str(value).strip()


def sent(text: str) -> str:
    """As it is."""
    return text


def conversation(text: str) -> list[dict[str, str]] | None:
    """The messages (role, content) of a text that is a conversation, as JSON; None of any other."""
    if not text.startswith("["):
        return None
    try:
        said = json.loads(text)
    except ValueError:  # a text that begins with a bracket
        return None
    if isinstance(said, list) and said and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in said):
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in said]
    return None


def key(text: str) -> str:
    """What two texts share when they are the same to a reader: words in lower case."""
    return " ".join(_KEY.findall(text.lower()))


def shown(text: str) -> str:
    """The text."""
    return text


def size(text: str) -> int:
    """Words."""
    return len(text.split())


def words(text: str) -> list[str]:
    """The words of a text, lower-cased, in their order, with repetitions."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Every word that occurs in the texts, once, sorted."""
    return sorted({word for text in texts for word in words(text)})


def typos(text: str, draw: random.Random) -> str:
    """One mistake in about every seventh word of four letters or more, and in one of them at least."""
    found = list(_LONG_WORD.finditer(text))
    chosen = [word for word in found if draw.random() < _TYPO_SHARE] or found[:1]
    for word in reversed(chosen):
        text = text[: word.start()] + _mistype(word.group(), draw) + text[word.end() :]
    return text


def case(text: str, draw: random.Random) -> str:
    """All capitals, no capitals or A Capital Each."""
    return draw.choice([text.upper(), text.lower(), string.capwords(text, " ")])


def punctuation(text: str, draw: random.Random) -> str:
    """None of its own, and another at the end."""
    bare = text.translate(_NO_PUNCTUATION).rstrip()
    return (bare or text) + draw.choice(["", ".", "!", "...", "!!", " ?"])


CHANGES: dict[str, Change] = {"typos": typos, "case": case, "punctuation": punctuation}


def topics(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """A topic for each text, named by its most typical words; "" for all when there are too few texts for two."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from sklearn.preprocessing import normalize

    count = min(count, len(texts) // _ROWS_A_TOPIC)
    bags = [[w for w in words(text) if w not in ENGLISH_STOP_WORDS] for text in texts]
    if count < 2 or len({word for bag in bags for word in bag}) <= count:  # noqa: PLR2004 - one topic says nothing
        return [""] * len(texts)
    counter = TfidfVectorizer(analyzer=lambda bag: bag, sublinear_tf=True, max_features=_WIDE_VOCABULARY)
    weights = counter.fit_transform(bags)
    width = min(_DIMENSIONS, weights.shape[1] - 1)
    points = normalize(TruncatedSVD(width, random_state=seed).fit_transform(weights))
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(points)
    names = _names(weights, found, counter.get_feature_names_out())
    return [names[number] for number in found]


def _names(weights: NDArray[np.float64], found: NDArray[np.int32], known: NDArray[np.str_]) -> dict[int, str]:
    """The words whose mean weight inside stands out most from that outside."""
    made: dict[int, str] = {}
    for number in sorted(set(found)):
        inside = found == number
        lift = np.asarray(weights[inside].mean(0) - weights[~inside].mean(0)).ravel()
        made[number] = ", ".join(known[np.argsort(-lift, kind="stable")[:_TYPICAL]])
    return made


def describe(texts: Sequence[str], vocabulary: Iterable[str]) -> pd.DataFrame:
    """Share (0..1) of each text's words that are not in `vocabulary`."""
    known = frozenset(vocabulary)
    return pd.DataFrame({UNKNOWN: [unknown_share(text, known) for text in texts]}, dtype=float)


def unknown_share(text: str, known: AbstractSet[str]) -> float:
    """Share (0..1) of a text's words that are not in `known` (lower-cased words); 0 for a text without words."""
    found = words(text)
    return sum(word not in known for word in found) / len(found) if found else 0.0


def _mistype(word: str, draw: random.Random) -> str:
    """Two letters change places, one is left out or one is struck twice; the first and the last one stay."""
    at = draw.randrange(1, len(word) - 2)
    return draw.choice(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        ]
    )
