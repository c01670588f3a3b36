"""Raw rows from where the spec says they are, in one shape: `input, label, group, time, row` and the slices.

Reading is `datasets`' own; this file turns its faults into one line each and checks that the columns are there.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import DataError
from jobs.inputs import texts
from jobs.spec import DataSpec
from jobs.specfile import is_path
from jobs.tasks.task import Task

from .faults import first_ten, in_file

_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_BUILDERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def load(spec: DataSpec, task: Task) -> pd.DataFrame:
    """Rows in file order; `row` counts from 1 as in the source without its header. Raises DataError."""
    frame = _read(spec)
    if frame.empty:
        raise DataError("has no rows", where=spec.source)
    wanted = {"input": spec.input, "label": spec.label, "group": spec.group, "time": spec.time}
    out = {name: _column(frame, column, name, spec) for name, column in wanted.items() if column is not None}
    folder = _folder(spec.source)
    out["input"] = _cells(out["input"], lambda cell: task.inputs.read(cell, folder), spec.input, spec)
    if spec.rejected is not None:
        worse = _column(frame, spec.rejected, "rejected", spec)
        pairs = zip(out["label"], worse, strict=True)
        out["label"] = pd.Series([{"chosen": a, "rejected": b} for a, b in pairs], index=frame.index)
    out["label"] = _cells(out["label"], task.targets.read, spec.label, spec)
    result = pd.DataFrame(out)
    result["group"] = result["group"].map(_text) if "group" in result else ""
    result["time"] = result.get("time")
    result["row"] = range(1, len(result) + 1)
    if spec.split.column is not None:
        result["split"] = _column(frame, spec.split.column, "split.column", spec).map(_text)
    for name in spec.slices:
        result[name] = _column(frame, name, "slices", spec).map(_text)
    return result


def _cells(cells: pd.Series[Any], read: Callable[[object], str], column: str, spec: DataSpec) -> pd.Series[str]:
    made, faults = [], []
    for row, cell in enumerate(cells, 1):
        try:
            made.append(read(cell))
        except ValueError as error:
            faults.append(f"row {row} column {column!r}: {error}")
    if faults:
        raise DataError(f"cannot be read: {first_ten(faults)}", where=spec.source)
    return pd.Series(made, index=cells.index, dtype=object)


def _folder(source: str) -> Path:
    """What paths in a source are relative to."""
    path = Path(source)
    return path if path.is_dir() else path.parent


def _read(spec: DataSpec) -> pd.DataFrame:
    import datasets

    datasets.disable_progress_bars()
    builder, arguments = _recipe(spec)
    try:
        rows = datasets.load_dataset(builder, **arguments)
    except (
        datasets.exceptions.DatasetGenerationError,
        datasets.exceptions.DatasetNotFoundError,
        ConnectionError,
        ValueError,
        OSError,
    ) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        if "corresponds to no data" in cause:  # how datasets says that a file has a header and no rows
            raise DataError("has no rows", where=spec.source) from None
        raise DataError(f"cannot be read: {_faults(spec.source) or cause}", where=spec.source) from None
    # An image is opened by us, so that what is wrong with it can be said.
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    # Through Arrow: a whole number must not become 1.0 because another row lacks it.
    frame: pd.DataFrame = rows.with_format("arrow")[:].to_pandas(integer_object_nulls=True)
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.ClassLabel):  # kept as numbers, meant as names
            frame[name] = [None if value is None or value < 0 else feature.int2str(int(value)) for value in frame[name]]
    return frame


def _faults(source: str) -> str:
    """The first ten faults of what lies there, by row and column; the file as well where it is one of several."""
    path = Path(source)
    if path.is_dir():
        return first_ten(f"{file.relative_to(path)} {fault}" for file in _files(path) for fault in in_file(file))
    return first_ten(in_file(path)) if path.is_file() else ""


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.suffix in _BUILDERS) if path.is_dir() else [path]


def _recipe(spec: DataSpec) -> tuple[str, dict[str, Any]]:
    if not is_path(spec.source) and not Path(spec.source).is_dir():
        return spec.source, {"split": spec.hub_split}
    path = Path(spec.source)
    if not path.exists():
        raise DataError("no such file", where=f"data.source {spec.source}", mend="paths are relative to the spec file")
    files = _files(path)
    if path.is_dir() and not files and _has_images(path):
        return "imagefolder", {"data_dir": str(path), "split": "train"}
    kinds = {_BUILDERS.get(file.suffix) for file in files}
    if len(kinds) != 1 or None in kinds:
        raise DataError("holds no CSV, JSONL or Parquet files, or a mixture of them", where=spec.source)
    if all(file.stat().st_size == 0 for file in files):
        raise DataError("is empty", where=spec.source)
    arguments: dict[str, Any] = {"data_files": [str(file) for file in files], "split": "train"}
    if files[0].suffix in {".csv", ".tsv"}:
        # Before pandas sees it: a field too many in the first row makes it shift every column by one.
        if faults := _faults(spec.source):
            raise DataError(f"cannot be read: {faults}", where=spec.source)
        # Everything as text: a label "01" must not become 1.
        sep = "\t" if files[0].suffix == ".tsv" else ","
        arguments |= {"sep": sep, "keep_default_na": False, "features": _all_text(files[0], sep)}
    return str(kinds.pop()), arguments


def _has_images(path: Path) -> bool:
    return any(file.suffix.lower() in _IMAGES for file in path.rglob("*"))


def _all_text(file: Path, sep: str) -> Any:
    import datasets

    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:  # as Excel writes it
        header = next(csv.reader(lines, delimiter=sep), [])
    return datasets.Features({name: datasets.Value("string") for name in header})


def _column(frame: pd.DataFrame, column: str, role: str, spec: DataSpec) -> pd.Series[Any]:
    if column not in frame.columns:
        close = difflib.get_close_matches(column, list(map(str, frame.columns)), n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"columns are {', '.join(map(str, frame.columns))}"
        raise DataError(f"data.{role}: no column {column!r}", where=spec.source, mend=mend)
    return frame[column]


def _text(value: Any) -> str:
    return texts.cell(value)
