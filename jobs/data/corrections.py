"""Labels put right by hand: read from a CSV, checked against the rows they are for, and applied.

The file has `row`, `input` and `label`, as `rehone audit` writes it; other columns are the reader's own. An empty label
drops the row.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cluster.errors import DataError

from .faults import first_ten, in_file

_NEEDED = ("row", "input", "label")


@dataclass(frozen=True)
class Correction:
    """`row` is the row's number in the source, from 1."""

    row: int
    input: str
    label: str


@dataclass(frozen=True)
class Corrections:
    """All of a file. `hash` follows from what they say and not from where the file lies."""

    source: str
    rows: tuple[Correction, ...]

    @property
    def hash(self) -> str:
        said = "\n".join(f"{c.row}\t{c.label}" for c in sorted(self.rows, key=lambda c: c.row))
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def read(path: Path) -> Corrections:
    """Raises DataError, which names the first ten faults by row and column."""
    if not path.is_file():
        raise DataError("no such file", where=f"data.corrections {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"has no column {', '.join(missing)}", where=str(path), mend="row, input, label")
            table = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(first_ten(in_file(path)) or str(error), where=str(path)) from None
    bad = [f"row {at} column 'row': {line['row']!r} is no row number" for at, line in _unnumbered(table)]
    if bad:
        raise DataError(first_ten(bad), where=str(path))
    made = (
        Correction(int(line["row"]), (line["input"] or "").strip(), (line["label"] or "").strip()) for line in table
    )
    return Corrections(str(path), tuple(made))


def apply(
    rows: pd.DataFrame, fixes: Corrections, fault: Callable[[str], str], same: Callable[[str, str], bool]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the labels of `fixes`, and the rows these drop with `reason` and `of` as `clean` has them.

    `same` says whether a correction's text is the row's own, `fault` what is wrong with a label. Raises DataError when
    a correction is for no row, for another text, for a row twice, or gives a faulty label: the first ten by row.
    """
    texts = dict(zip(rows["row"], rows["input"], strict=True))
    faults = [f"row {at} {found}" for at, found in enumerate(_faults(fixes.rows, texts, fault, same), 1) if found]
    if faults:
        raise DataError(
            first_ten(faults), where=fixes.source, mend="corrections are for one file as it was; audit it again"
        )
    new = rows["row"].map({fix.row: fix.label for fix in fixes.rows})
    dropped = new == ""
    changed = rows.assign(label=new.where(new.notna(), rows["label"]))
    return (
        changed[~dropped].reset_index(drop=True),
        rows[dropped].assign(reason="dropped by a correction", of=0).reset_index(drop=True),
    )


def _faults(
    fixes: Sequence[Correction], texts: dict[int, str], fault: Callable[[str], str], same: Callable[[str, str], bool]
) -> list[str]:
    """For each correction what is wrong with it, or ""."""
    seen: set[int] = set()
    found = []
    for fix in fixes:
        if fix.row not in texts:
            found.append(f"column 'row': the data has no row {fix.row}")
        elif fix.row in seen:
            found.append(f"column 'row': row {fix.row} is corrected twice")
        elif not same(fix.input, texts[fix.row]):
            found.append(f"column 'input': {fix.input[:40]!r} is not what row {fix.row} of the data says")
        elif fix.label and fault(fix.label):
            found.append(f"column 'label': {fault(fix.label)}")
        else:
            found.append("")
        seen.add(fix.row)
    return found


def _unnumbered(table: Iterable[dict[str, str]]) -> Iterator[tuple[int, dict[str, str]]]:
    return ((at, line) for at, line in enumerate(table, 1) if not (line["row"] or "").strip().isdecimal())
