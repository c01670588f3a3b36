"""Columns of rows that are to be trained on: flat numbers that may lie in a mapped file, without an object for each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[Any], NDArray[np.int64]]
"""Values, and where each row begins in them, with where the last one ends."""


class Ragged:
    """Rows of any length. Of parts that are mapped only those pages are read whose rows are asked for.

    `chosen` are the rows of the parts that these are, in this order; all of them when None.
    """

    def __init__(self, parts: Sequence[Part], chosen: NDArray[np.int64] | None = None) -> None:
        self.parts, self._chosen = parts, chosen
        self._begins = list(accumulate((len(begins) - 1 for _, begins in parts), initial=0))

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        begins = _begins(map(len, rows), len(rows))
        return cls([(np.fromiter(chain.from_iterable(rows), np.int32, begins[-1]), begins)])

    def __len__(self) -> int:
        return self._begins[-1] if self._chosen is None else len(self._chosen)

    def __getitem__(self, at: int) -> NDArray[Any]:
        row = at if self._chosen is None else int(self._chosen[at])
        part = bisect_right(self._begins, row) - 1
        values, begins = self.parts[part]
        first = row - self._begins[part]
        return values[begins[first] : begins[first + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        sizes = np.concatenate([np.diff(begins) for _, begins in self.parts])
        return sizes if self._chosen is None else sizes[self._chosen]


@dataclass(frozen=True)
class Texts:
    """Strings, whose lengths are in bytes."""

    utf8: Ragged

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        raw = [text.encode() for text in texts]
        return cls(Ragged([(np.frombuffer(b"".join(raw), np.uint8), _begins(map(len, raw), len(raw)))]))

    def __len__(self) -> int:
        return len(self.utf8)

    def __getitem__(self, at: int) -> str:
        return self.utf8[at].tobytes().decode()

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.utf8.lengths


def _begins(sizes: Iterable[int], count: int) -> NDArray[np.int64]:
    begins = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(sizes, np.int64, count), out=begins[1:])
    return begins
