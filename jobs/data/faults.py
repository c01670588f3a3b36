"""What is wrong in a file, by row and column: the first ten faults and how many more.

A reader that gives up says only where it stopped; this looks at the whole file once more, when that has happened.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

_SHOWN = 10

csv.field_size_limit(2**31 - 1)  # a text may be longer than the 128 KiB that a field may have by default


def first_ten(faults: Iterable[str]) -> str:
    """`a, b and 3 more`; empty when there is none."""
    every = iter(faults)
    shown = ", ".join(islice(every, _SHOWN))
    more = sum(1 for _ in every)
    return f"{shown} and {more} more" if more else shown


def in_file(path: Path) -> Iterator[str]:
    """Faults of a CSV, TSV, JSON or JSONL file, each with its row; none when it is of another kind."""
    match path.suffix:
        case ".csv" | ".tsv":
            yield from _in_table(path, "\t" if path.suffix == ".tsv" else ",")
        case ".jsonl" | ".json":
            yield from _in_json(path)


def _in_table(path: Path, sep: str) -> Iterator[str]:
    yield from _undecodable(path)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.reader(lines, delimiter=sep)
        header = next(reader, [])
        yield from (f"column {name!r} is there twice" for name in sorted({n for n in header if header.count(n) > 1}))
        try:
            for row, fields in enumerate(filter(None, reader), start=1):
                if len(fields) > len(header):
                    extra = fields[len(header)]
                    yield f"row {row} column {len(header) + 1}: {extra[:20]!r} is beyond the {len(header)} columns"
        except csv.Error as error:
            yield f"line {reader.line_num}: {error}"


def _in_json(path: Path) -> Iterator[str]:
    yield from _undecodable(path)
    with path.open(encoding="utf-8", errors="replace") as lines:
        if lines.read(1) == "[":  # one array, which has no rows before it is whole
            return
        lines.seek(0)
        types: dict[str, tuple[str, int]] = {}
        for row, line in enumerate(filter(str.strip, lines), start=1):
            try:
                value = json.loads(line.rstrip())
            except ValueError as error:
                yield f"row {row} column {getattr(error, 'colno', 1)}: {getattr(error, 'msg', error)}"
                continue
            yield from _in_object(row, value, types)


def _in_object(row: int, value: object, types: dict[str, tuple[str, int]]) -> Iterator[str]:
    """`types` holds for each key the kind of its first value and the row of it."""
    if not isinstance(value, dict):
        yield f"row {row}: is a {type(value).__name__} and no object"
        return
    for key, field in value.items():
        if field is None:
            continue
        kind, since = types.setdefault(key, (type(field).__name__, row))
        if type(field).__name__ != kind:
            yield f"row {row} column {key!r}: {type(field).__name__}, but {kind} in row {since}"


def _undecodable(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                yield f"line {number} byte {error.start + 1}: 0x{byte:02x} is not UTF-8"
