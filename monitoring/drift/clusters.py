"""Which groups of inputs have grown or shrunk: clusters of embeddings, each with a test and with real inputs.

Clusters are k-means over reference and window together, so that what only one side has is a group too. They are made
without knowing the sides: while nothing has changed, how many of a group's rows are the window's is a draw without
replacement. That is Fisher's exact test, here corrected for the number of groups (Bonferroni).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Tokens = Callable[[str], Sequence[str]]

_ROWS_A_GROUP = 50
_MOST_GROUPS = 12
_EXAMPLES = 3
_WORDS = 5
_SURE = 1.96
"""Standard deviations from which a word tells a group."""


@dataclass(frozen=True)
class Part:
    """A group's rows on one side, by their positions there, the nearest to the group's centre first.

    `label` is the commonest answer, `confidence` the mean; None without rows. `right` counts the `labelled` rows that
    were answered rightly. `examples` are distinct inputs.
    """

    rows: tuple[int, ...]
    share: float
    label: str | None
    confidence: float | None
    labelled: int
    right: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """`p_value` is corrected for the number of groups. `words` tell the group from the rest, the strongest first."""

    words: tuple[str, ...]
    before: Part
    now: Part
    p_value: float
    moved: bool

    @property
    def grew(self) -> bool:
        return self.now.share > self.before.share

    @property
    def change(self) -> float:
        """Of the share, -1 to 1."""
        return self.now.share - self.before.share


def find(
    reference: pd.DataFrame, window: pd.DataFrame, level: float, tokens: Tokens | None = None, seed: int = 0
) -> list[Group]:
    """Groups of both sides' rows (`input, label, confidence, true, embedding`), those that moved and the largest first.

    The chance that any group is said to have moved while nothing has changed is `level` at most. `tokens` gives a
    text's words; without it groups have none. Too few or too equal rows are one group.
    """
    both = pd.concat([reference, window], ignore_index=True)
    points = np.stack(list(both["embedding"])).astype(np.float64)
    ours = np.arange(len(both)) >= len(reference)
    numbers, distances = _clusters(points, seed)
    count = int(numbers.max()) + 1
    words = _words(list(both["input"]), numbers, tokens) if tokens else [()] * count
    groups = []
    for number in range(count):
        inside = numbers == number
        p_value = min(1.0, count * _fisher(inside, ours))
        before, now = (_part(both, inside, distances, side) for side in (~ours, ours))
        groups.append(Group(words[number], before, now, p_value, p_value <= level))
    return sorted(groups, key=lambda group: (not group.moved, -abs(group.change)))


def _clusters(points: NDArray[np.float64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each row's cluster, (n,), and its distance from the cluster's centre, (n,)."""
    from sklearn.cluster import KMeans

    # k-means starts from rows drawn by their place: sorted, it cannot know which side a row is from.
    order = np.lexsort(points.T)
    count = max(1, min(_MOST_GROUPS, len(points) // _ROWS_A_GROUP, len(np.unique(points, axis=0))))
    found = KMeans(count, n_init=4, random_state=seed).fit(points[order])
    numbers = np.empty(len(points), np.int64)
    numbers[order] = found.labels_
    return numbers, np.linalg.norm(points - found.cluster_centers_[numbers], axis=1)


def _fisher(inside: NDArray[np.bool_], ours: NDArray[np.bool_]) -> float:
    from scipy.stats import fisher_exact

    table = [[int((inside & side).sum()), int((~inside & side).sum())] for side in (~ours, ours)]
    return float(fisher_exact(table).pvalue)


def _part(
    both: pd.DataFrame, inside: NDArray[np.bool_], distances: NDArray[np.float64], side: NDArray[np.bool_]
) -> Part:
    near = np.flatnonzero(inside & side)
    near = near[np.argsort(distances[near], kind="stable")]
    rows = both.iloc[near]
    known = rows[rows["true"].notna()]
    return Part(
        rows=tuple(int(place) for place in near - int(np.flatnonzero(side)[0])),
        share=len(near) / int(side.sum()),
        label=str(rows["label"].mode().iloc[0]) if len(rows) else None,
        confidence=float(rows["confidence"].mean()) if len(rows) else None,
        labelled=len(known),
        right=int((known["true"] == known["label"]).sum()),
        examples=tuple(rows["input"].drop_duplicates().head(_EXAMPLES)),
    )


def _words(texts: Sequence[str], numbers: NDArray[np.int64], tokens: Tokens) -> list[tuple[str, ...]]:
    """Words by the z-score of their log odds inside against outside (Monroe et al. 2008, with a Dirichlet prior).

    A word counts once a text; the prior is what both have together, so that rare words do not stand out by chance.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    bags = [set(tokens(text)) - ENGLISH_STOP_WORDS for text in texts]
    total = Counter(word for bag in bags for word in bag)
    known = sorted(word for word, times in total.items() if times > 1)
    every = np.array([total[word] for word in known], float)
    made: list[tuple[str, ...]] = []
    for number in range(int(numbers.max()) + 1):
        here = Counter(word for bag, own in zip(bags, numbers, strict=True) if own == number for word in bag)
        inside = np.array([here[word] for word in known], float)
        scores = _log_odds(inside, every - inside, every)
        best = np.argsort(-scores, kind="stable")[:_WORDS]
        made.append(tuple(known[place] for place in best if scores[place] >= _SURE))
    return made


def _log_odds(
    inside: NDArray[np.float64], outside: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """z-scores, (words,), from counts, (words,), all of them with a prior above 0."""

    def odds(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        posterior = counts + prior
        # A vocabulary of one word has nothing against it.
        return np.asarray(np.log(posterior / np.maximum(posterior.sum() - posterior, 1)))

    deviation = np.sqrt(1 / (inside + prior) + 1 / (outside + prior))
    return np.asarray((odds(inside) - odds(outside)) / deviation)
