"""Which rows are dropped before a split, and why. Pure: a frame in, a frame and the dropped rows out.

Near duplicates: MinHash LSH over word 3-grams (Broder 1997; datasketch) proposes pairs, the exact Jaccard
similarity decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from datasketch import MinHash, MinHashLSH

from cluster.errors import DataError

_WORD = re.compile(r"\w+")
_PERMUTATIONS = 64


def clean(rows: pd.DataFrame, near_duplicates: float | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kept rows in their order, and the dropped ones with a column `reason`.

    Reasons: `empty text`, `empty label`, `conflicting labels` (the same text under two labels: all of them go),
    `duplicate` (the first stays), `near duplicate` (the first stays).
    """
    rows = rows.reset_index(drop=True)
    reason = pd.Series("", index=rows.index)
    key = rows["text"].map(normalise)
    reason[rows["label"] == ""] = "empty label"
    reason[key == ""] = "empty text"
    usable = reason == ""
    labels_of_text = rows[usable].groupby(key[usable])["label"].transform("nunique")
    reason[labels_of_text[labels_of_text > 1].index] = "conflicting labels"
    usable = reason == ""
    reason[key[usable][key[usable].duplicated()].index] = "duplicate"
    if near_duplicates is not None:
        usable = reason == ""
        reason[_near(key[usable], near_duplicates)] = "near duplicate"
    kept = reason == ""
    return rows[kept].reset_index(drop=True), rows[~kept].assign(reason=reason[~kept]).reset_index(drop=True)


def check_labels(rows: pd.DataFrame, known: Sequence[str] | None, source: str) -> list[str]:
    """The labels, sorted or in the spec's order. Raises DataError on an unknown label or fewer than two."""
    found = sorted(set(rows["label"]) - {""})
    if known is not None:
        bad = rows[~rows["label"].isin([*known, ""])]
        if len(bad):
            first = bad.head(10)
            at = ", ".join(f"row {row} {label!r}" for row, label in zip(first["row"], first["label"], strict=True))
            more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""  # noqa: PLR2004 - the first ten are named
            raise DataError(
                f"labels that data.labels does not name: {at}{more}",
                where=source,
                mend=f"data.labels is {', '.join(known)}",
            )
    if len(found) < 2:  # noqa: PLR2004 - a classifier needs two classes
        raise DataError(
            f"has only the label {found[0]!r}" if found else "has no labels",
            where=source,
            mend="a classifier needs at least two labels",
        )
    return list(known) if known is not None else found


def normalise(text: str) -> str:
    """What two texts share when they are the same to a reader: words in lower case."""
    return " ".join(_WORD.findall(text.lower()))


def _near(keys: pd.Series[str], threshold: float) -> list[int]:
    shingles = {index: _shingles(key) for index, key in keys.items()}
    lsh = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    dropped = []
    for index, grams in shingles.items():
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update_batch([gram.encode() for gram in grams])
        if any(_jaccard(grams, shingles[other]) >= threshold for other in lsh.query(sketch)):
            dropped.append(index)
        else:
            lsh.insert(index, sketch)
    return dropped  # type: ignore[return-value]  # the index of a frame is int here


def _shingles(key: str) -> frozenset[str]:
    words = key.split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
