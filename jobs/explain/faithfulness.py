"""Whether explanations are true to the model: cutting the words they name must cost the score more than any others do.

The comprehensiveness of DeYoung et al. 2020 (ERASER), beside the same for words drawn by chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.console import meter
from cluster.errors import DataError
from cluster.storage import Storage
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TEST
from jobs.predictor import Output

from .explain import Explanation, Word


class Explains(Protocol):
    """What is asked of a model here."""

    def __call__(self, texts: Sequence[str]) -> list[Output]: ...

    def explain(self, text: str, label: str | None, steps: int) -> Explanation: ...


@dataclass(frozen=True)
class Faithfulness:
    """By how much the score of the predicted label falls, on average, when `share` of a text's words are cut.

    `named`: the ones that the explanation names; `chance`: as many drawn by chance. Scores are probabilities.
    """

    texts: int
    share: float
    named: float
    chance: float


def on_test_rows(model: Explains, data: DatasetVersion, storage: Storage, rows: int, steps: int) -> Faithfulness:
    """Of `rows` test rows of a dataset version, drawn by chance; all of them when there are fewer."""
    test = data.rows(storage, TEST)
    return check(model, list(test["input"].sample(min(rows, len(test)), random_state=0)), steps)


def check(model: Explains, texts: Sequence[str], steps: int, *, share: float = 0.2, seed: int = 0) -> Faithfulness:
    """Explains each text and cuts at least one word of it; texts of one word are left out. Raises DataError on none."""
    draw = random.Random(seed)  # noqa: S311 - a fair choice, not a secret
    made = []
    with meter("explain", len(texts)) as bar:
        for done, text in enumerate(texts, 1):
            made.append(model.explain(text, None, steps))
            bar.update(done)
    made = [explanation for explanation in made if len(explanation.words) > 1]
    if not made:
        raise DataError("no text has two words, so none can be cut")
    named, chance = [], []
    for explanation in made:
        count = max(1, round(share * len(explanation.words)))
        named.append(without(explanation.text, strongest(explanation, count)))
        chance.append(without(explanation.text, draw.sample(explanation.words, count)))
    return Faithfulness(len(made), share, _fall(model, made, named), _fall(model, made, chance))


def strongest(made: Explanation, count: int) -> list[Word]:
    """The words that speak most for the label, strongest first."""
    return sorted(made.words, key=lambda word: -word.attribution)[:count]


def without(text: str, words: Sequence[Word]) -> str:
    """The text with some of its words cut out."""
    for word in sorted(words, key=lambda w: -w.start):
        text = text[: word.start] + text[word.end :]
    return " ".join(text.split())


def _fall(model: Explains, made: Sequence[Explanation], cut: Sequence[str]) -> float:
    outputs = model(list(cut))
    return sum(e.score - o.scores[e.label] for e, o in zip(made, outputs, strict=True)) / len(made)
