"""Two files of rows compared: has what a table holds changed? Any columns, no model.

Numbers and categories are compared as they are; a column of texts by its lengths and its share of other than letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cluster.errors import DataError
from jobs import show
from jobs.data.faults import first_ten, in_file

from . import compare
from .compare import ColumnDrift, Sample, is_number

_MOST_CATEGORIES = 50
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True),
}


@dataclass(frozen=True)
class Compared:
    """`left_out` are columns that only one side has. `rate` is the chance of any flag when nothing has changed."""

    reference: str
    current: str
    reference_rows: int
    current_rows: int
    rate: float
    drifted: bool
    columns: tuple[ColumnDrift, ...]
    left_out: tuple[str, ...]


def compared(reference: Path, current: Path, rate: float) -> Compared:
    """Raises DataError for a file that cannot be read, has no rows or shares no column with the other."""
    ref, cur = read(reference), read(current)
    names = [name for name in ref.columns if name in cur.columns]
    if not names:
        raise DataError(f"shares no column with {reference}", where=str(current))
    both = pd.concat([ref[names], cur[names]], ignore_index=True)
    known = pd.concat([_known(str(name), both[name]) for name in names], axis=1)
    sides = Sample(known.iloc[: len(ref)]), Sample(known.iloc[len(ref) :].reset_index(drop=True))
    columns = compare.samples(*sides, rate)
    return Compared(
        reference=str(reference),
        current=str(current),
        reference_rows=len(ref),
        current_rows=len(cur),
        rate=rate,
        drifted=any(column.drifted for column in columns),
        columns=columns,
        left_out=tuple(sorted(map(str, set(ref.columns) ^ set(cur.columns)))),
    )


def read(path: Path) -> pd.DataFrame:
    """A file's rows. Raises DataError."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError("is no table", where=str(path), mend=f"one of {', '.join(_READERS)}")
    try:
        rows = reader(path)
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except (OSError, ValueError) as error:  # pandas' and Arrow's errors of parsing are values
        raise DataError(f"cannot be read: {first_ten(in_file(path)) or error}", where=str(path)) from None
    if rows.empty:
        raise DataError("has no rows", where=str(path))
    return rows


def told(found: Compared) -> str:
    """What a person reads, what drifted first."""
    ordered = sorted(found.columns, key=lambda column: column.p_value)
    rows = [
        [c.name, c.method, f"{c.p_value:.2g}", f"{c.threshold:.2g}", "DRIFTED" if c.drifted else ""] for c in ordered
    ]
    head = f"{found.reference} ({found.reference_rows:,} rows) -> {found.current} ({found.current_rows:,} rows)"
    moved = [column.name for column in ordered if column.drifted]
    verdict = f"{len(moved)}/{len(ordered)} drifted: {', '.join(moved)}" if moved else "no drift"
    said = f"{verdict}; when nothing has changed anything is flagged with a chance of {found.rate:g}"
    only = [f"only on one side, not compared: {', '.join(found.left_out)}"] if found.left_out else []
    return "\n".join([show.table(head, ["column", "test", "p", "flagged at", ""], rows), said, *only])


def _known(name: str, column: pd.Series) -> pd.DataFrame:
    """What is compared of a column, whose kind both sides together decide."""
    if is_number(column) or pd.api.types.is_bool_dtype(column) or column.nunique() <= _MOST_CATEGORIES:
        return column.rename(name).to_frame()
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.astype("int64").astype(float).rename(name).to_frame()
    text = column.astype("string").fillna("")
    letters = text.str.count(r"[^\W\d_]|\s")
    length = text.str.len().astype(float)
    return pd.DataFrame({f"{name}: length": length, f"{name}: non-letters": 1 - letters / length.clip(lower=1)})
