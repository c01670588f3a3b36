"""A text that the model writes: an answer, a translation, a summary, what was said.

Metrics: chrF (Popović 2015, as sacrebleu computes it), ROUGE-L's F-measure (Lin 2004), and the shares of words and of
characters that need no correction, which are 1 less the word and the character error rate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from rapidfuzz.distance import LCSseq, Levenshtein

from jobs.evaluation.metrics import ratio
from jobs.inputs import texts

from . import EXACT_MATCH, Found, Metric, Values, exact_match, mean

NAME, CLOSED, LISTED, LEAST = "text", False, True, 0

_ORDERS = range(1, 7)  # of character n-grams in chrF
_BETA = 2.0  # recall counts twice as much as precision
_BLANKS = re.compile(r"\s+")


def read(value: object) -> str:
    """The text itself."""
    return texts.cell(value)


def parts(target: str) -> list[str]:  # noqa: ARG001 - a text has no labels
    """None."""
    return []


def found(target: str) -> frozenset[Found]:  # noqa: ARG001 - as above
    """None."""
    return frozenset()


def fault(target: str, labels: Sequence[str]) -> str:  # noqa: ARG001 - any text is one
    """That it is empty."""
    return "" if target.strip() else "an empty text is no answer"


def watched(targets: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:  # noqa: ARG001 - a text has no labels
    """How many words it has."""
    return pd.DataFrame({"words of the answer": [float(len(target.split())) for target in targets]})


def _grams(text: str, order: int) -> Counter[str]:
    bare = _BLANKS.sub("", text)
    return Counter(bare[at : at + order] for at in range(len(bare) - order + 1))


def _chrf_statistics(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
    """(models, rows, 18): of each order n-grams in the prediction, in the reference, in both.

    Those of a prediction count only where the reference is long enough to have any, as sacrebleu has it.
    """
    wanted = [[_grams(target, order) for order in _ORDERS] for target in true]

    def row(grams: Sequence[Counter[str]], text: str) -> list[int]:
        given = [_grams(text, order) for order in _ORDERS]
        return [
            number
            for mine, theirs in zip(given, grams, strict=True)
            for number in (mine.total() if theirs else 0, theirs.total(), (mine & theirs).total())
        ]

    return np.array([[row(grams, text) for grams, text in zip(wanted, each, strict=True)] for each in predicted], float)


def _chrf(sums: Values) -> Values:
    given, wanted, both = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    # Orders that neither side is long enough for do not count.
    counted = (given > 0) & (wanted > 0)
    orders = counted.sum(-1).astype(float)
    precision = ratio((ratio(both, given) * counted).sum(-1), orders)
    recall = ratio((ratio(both, wanted) * counted).sum(-1), orders)
    return ratio((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)


def _rouge_l(true: str, predicted: str) -> float:
    wanted, given = true.lower().split(), predicted.lower().split()
    return 2 * LCSseq.similarity(wanted, given) / max(1, len(wanted) + len(given))


def _unerring(pieces: Callable[[str], Sequence[str]]) -> Metric:
    """1 less edits (substituted, left out, put in) over pieces of the reference; below 0 where edits are more."""

    def statistics(true: Sequence[str], predicted: Sequence[Sequence[str]]) -> Values:
        wanted = [pieces(target) for target in true]
        return np.array(
            [
                [[Levenshtein.distance(t, pieces(p)), len(t)] for t, p in zip(wanted, each, strict=True)]
                for each in predicted
            ],
            float,
        )

    return Metric(statistics, lambda sums: 1 - ratio(sums[..., 0], sums[..., 1]))


METRICS = {
    "chrf": Metric(_chrf_statistics, _chrf),
    "rouge_l": mean(_rouge_l),
    "word_accuracy": _unerring(str.split),
    "character_accuracy": _unerring(list),
    EXACT_MATCH: exact_match,
}
