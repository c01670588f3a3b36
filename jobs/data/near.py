"""Near duplicates: texts whose word 3-grams have at least a given Jaccard similarity.

Prefix filtering (Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007): with the rarest 3-grams first, two sets
that are similar enough share one of their first few. So no pair is missed, which a sketch such as MinHash cannot say.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

Grams = frozenset[str]

_ROUNDING = 1e-9  # 0.55 * 20 is a little over 11


def repeats(keys: Sequence[str], threshold: float, known: Sequence[str] = ()) -> list[int]:
    """Positions of the keys that are near a key of `known` or near an earlier key that is not itself returned.

    Keys are what `Inputs.key` gives. What is not returned is pairwise below the threshold.
    """
    return list(twins(keys, threshold, known))


def twins(keys: Sequence[str], threshold: float, known: Sequence[str] = ()) -> dict[int, int]:
    """What `repeats` returns, with the position of a key that each is near; negative ones count back in `known`."""
    sets = [grams(key) for key in (*known, *keys)]
    often = Counter(gram for one in sets for gram in one)
    index: defaultdict[str, list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for at, one in enumerate(sets):
        first = _rarest(one, often, threshold)
        near = next(_near(one, first, index, sets, threshold), None) if at >= len(known) else None
        if near is not None:
            found[at - len(known)] = near - len(known)
            continue
        for gram in first:
            index[gram].append(at)
    return found


def pairs(keys: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of positions, the earlier one first, whose keys are near each other."""
    sets = [grams(key) for key in keys]
    often = Counter(gram for one in sets for gram in one)
    index: defaultdict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(sets):
        first = _rarest(one, often, threshold)
        yield from ((other, at) for other in _near(one, first, index, sets, threshold))
        for gram in first:
            index[gram].append(at)


def grams(key: str) -> Grams:
    """Word 3-grams; of a shorter text, all its words as one."""
    words = key.split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def jaccard(a: Grams, b: Grams) -> float:
    return len(a & b) / len(a | b)


def _rarest(one: Grams, often: Counter[str], threshold: float) -> list[str]:
    """The 3-grams of which a set that is near this one has at least one among its own."""
    rarest = sorted(one, key=lambda gram: (often[gram], gram))
    return rarest[: len(one) - math.ceil(threshold * len(one) - _ROUNDING) + 1]


def _near(
    one: Grams, first: Sequence[str], index: dict[str, list[int]], sets: list[Grams], least: float
) -> Iterator[int]:
    candidates = {other for gram in first for other in index.get(gram, ())}
    return (other for other in sorted(candidates) if jaccard(one, sets[other]) >= least)
