"""What a model makes of inputs that a person reads as the same: with typos, in other case, with other punctuation."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from jobs.predictor import Output

_TYPO_SHARE = 0.15
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answers(Protocol):
    """What of a predictor is needed here."""

    def __call__(self, texts: Sequence[str]) -> list[Output]: ...


@dataclass(frozen=True)
class Robustness:
    """One kind of change on a sample of the test rows.

    `touched`: rows that it changes at all. `changed`: share of the rows whose predicted label it changes.
    """

    change: str
    rows: int
    touched: int
    accuracy_before: float
    accuracy: float
    changed: float


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


CHANGES: dict[str, Callable[[str, random.Random], str]] = {"typos": typos, "case": case, "punctuation": punctuation}


def measure(answer: Answers, rows: pd.DataFrame, most: int, seed: int = 0) -> tuple[Robustness, ...]:
    """Each change on at most `most` of the answered rows (`input, true, label`); none when `most` is 0."""
    if not most:
        return ()
    sample = rows if len(rows) <= most else rows.sample(most, random_state=seed)
    return tuple(_changed(name, answer, sample, seed) for name in CHANGES)


def _changed(name: str, answer: Answers, rows: pd.DataFrame, seed: int) -> Robustness:
    draw = random.Random(f"{seed} {name}")  # noqa: S311 - a sample, not a secret
    texts = [CHANGES[name](text, draw) for text in rows["input"]]
    labels = [output.label for output in answer(texts)]
    return Robustness(
        change=name,
        rows=len(rows),
        touched=int((rows["input"] != texts).sum()),
        accuracy_before=float((rows["true"] == rows["label"]).mean()),
        accuracy=float((rows["true"] == labels).mean()),
        changed=float((rows["label"] != labels).mean()),
    )


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
