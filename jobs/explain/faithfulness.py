"""Whether explanations are true to the model: cutting the parts they name must cost the score more than any others do.

The comprehensiveness of DeYoung et al. 2020 (ERASER), beside the same for parts drawn by chance. Parts are the words of
a text or the cells of an image.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.console import meter
from cluster.errors import DataError
from cluster.store.storage import Storage
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TEST
from jobs.tasks.task import Output

from .explanation import Explanation


class Explains(Protocol):
    """What is asked of a model here."""

    def __call__(self, inputs: Sequence[str], /) -> list[Output]: ...

    def explain(self, given: str, label: str | None, steps: int, /) -> Explanation: ...


@dataclass(frozen=True)
class Faithfulness:
    """By how much the score of the predicted label falls, on average, when `share` of an input's parts are cut.

    `named`: the ones that the explanation names; `chance`: as many drawn by chance. Scores are probabilities.
    """

    inputs: int
    share: float
    named: float
    chance: float


def on_test_rows(model: Explains, data: DatasetVersion, storage: Storage, rows: int, steps: int) -> Faithfulness:
    """Of `rows` test rows of a dataset version, drawn by chance; all of them when there are fewer."""
    test = data.rows(storage, TEST)
    return check(model, list(test["input"].sample(min(rows, len(test)), random_state=0)), steps)


def check(model: Explains, texts: Sequence[str], steps: int, *, share: float = 0.2, seed: int = 0) -> Faithfulness:
    """Explains each input and cuts at least one part; inputs of one part are left out. Raises DataError on none."""
    draw = random.Random(seed)  # noqa: S311 - a fair choice, not a secret
    made = []
    with meter("explain", len(texts)) as bar:
        for done, text in enumerate(texts, 1):
            made.append(model.explain(text, None, steps))
            bar.update(done)
    made = [explanation for explanation in made if len(explanation.parts) > 1]
    if not made:
        raise DataError("no input has two parts, so none can be cut")
    named, chance = [], []
    for explanation in made:
        count = max(1, round(share * len(explanation.parts)))
        named.append(explanation.without(explanation.strongest(count)))
        chance.append(explanation.without(draw.sample(explanation.parts, count)))
    return Faithfulness(len(made), share, _fall(model, made, named), _fall(model, made, chance))


def _fall(model: Explains, made: Sequence[Explanation], cut: Sequence[str]) -> float:
    outputs = model(list(cut))
    return sum(e.score - o.scores[e.label] for e, o in zip(made, outputs, strict=True)) / len(made)
