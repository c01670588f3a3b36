"""Columns of rows as models take them: flat numbers that may lie in a mapped file, without an object for each.

What a task makes of rows (`Encoded` in `jobs/tasks/task.py`) is a dataclass with such columns; here it is taken apart
into Arrow's arrays and put together again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

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


def parted(made: Any) -> tuple[dict[str, pa.Array], Any]:
    """The columns of what a task made of rows, by their names, and what it makes of none."""
    arrays: dict[str, pa.Array] = {}

    def take(key: str, column: Any) -> Any:
        arrays[key] = _array(column)
        return Ragged.of([]) if isinstance(column, Ragged) else column[:0]

    shape = _each(made, take)
    return arrays, shape


def joined(shape: Any, parts: Sequence[pa.RecordBatch], chosen: NDArray[np.int64] | None) -> Any:
    """The opposite. Nothing is copied but columns that have as many numbers in each row."""
    return _each(shape, lambda key, kind: _read([part.column(key) for part in parts], kind, chosen))


def _each(made: Any, change: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """The same object with other columns: `change` takes the name of each and what it is now."""
    values: dict[str, Any] = {}
    for field in fields(made):
        key, value = prefix + field.name, getattr(made, field.name)
        if isinstance(value, Ragged | np.ndarray):
            values[field.name] = change(key, value)
        elif is_dataclass(value):
            values[field.name] = _each(value, change, f"{key}.")
    return replace(made, **values)


def _array(column: Ragged | NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    if isinstance(column, Ragged):
        ((values, begins),) = column.parts
        return pa.LargeListArray.from_arrays(begins, values)
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])


def _read(parts: Sequence[pa.Array], kind: Ragged | NDArray[Any], chosen: NDArray[np.int64] | None) -> Any:
    if isinstance(kind, Ragged):
        return Ragged([(part.flatten().to_numpy(), part.offsets.to_numpy()) for part in parts], chosen)
    flat = [part.to_numpy() if kind.ndim == 1 else part.flatten().to_numpy() for part in parts]
    whole = np.concatenate(flat).reshape(-1, *kind.shape[1:])
    return whole if chosen is None else whole[chosen]
