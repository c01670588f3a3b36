"""What a person reads of dataset versions on a terminal: the list, one version, two side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs import show

from .compare import Change, Difference, Shape
from .dataset import DatasetVersion
from .lineage import Lineage
from .split import SPLITS

CHANGED = "CHANGED: its rows no longer have the hash it is named after; do not train on it"

_RULES = ("near_duplicates", "slices", "seed")


def versions(found: Sequence[DatasetVersion]) -> str:
    if not found:
        return "no dataset version is kept yet; `rehone prepare SPEC` makes one"
    rows = (
        [f"{v.name}/{v.version}", *map(v.size, SPLITS), len(v.labels), v.parent or "", _when(v.created), v.source]
        for v in found
    )
    return show.table("", ["dataset", *SPLITS, "labels", "parent", "created", "source"], rows)


def version(found: Lineage) -> str:
    made = found.version
    split = made.rules["split"]
    column = f" {split['column']}" if split["column"] else ""
    parts = [
        show.dataset(made),
        f"made {_when(made.created)} from {made.source}",
        f"split by {split['by']}{column}, " + ", ".join(f"{key} {made.rules[key]}" for key in _RULES),
        *(f"from {v.version}, made {_when(v.created)}" for v in found.ancestors),
        "intact: its rows still have the hash it is named after" if found.intact else CHANGED,
    ]
    return "\n".join([*parts, "", lengths(found.shapes), "", _runs(found.runs)])


def difference(a: DatasetVersion, b: DatasetVersion, found: Difference, examples: int) -> str:
    """Counts, label and length distributions side by side, and the first few rows of each kind of change."""
    heads = [f"{v.name}/{v.version}" for v in (a, b)]
    shapes = dict(zip(heads, (found.before, found.after), strict=True))
    counts = (f"{len(getattr(found, kind))} {kind}" for kind in ("added", "removed", "relabelled", "moved"))
    parts = [
        f"{heads[0]} -> {heads[1]}: {', '.join(counts)}, {found.same} as they were",
        _labels(shapes),
        lengths(shapes),
        _examples("added", found.added, examples, lambda c: f"{c.label[1]}, {c.split[1]}"),
        _examples("removed", found.removed, examples, lambda c: f"{c.label[0]}, {c.split[0]}"),
        _examples("relabelled", found.relabelled, examples, lambda c: " -> ".join(c.label)),
        _examples("moved", found.moved, examples, lambda c: " -> ".join(c.split)),
    ]
    return "\n\n".join(filter(None, parts))


def lengths(shapes: Mapping[str, Shape]) -> str:
    """Sizes of inputs, one column a shape."""
    first = next(iter(shapes.values()))
    rows = ([name, *(f"{shape.sizes[name]:.4g}" for shape in shapes.values())] for name in first.sizes)
    return show.table(first.unit, ["", *shapes], rows)


def _labels(shapes: Mapping[str, Shape]) -> str:
    labels = sorted({label for shape in shapes.values() for label in shape.labels})
    rows: Iterable[list[str]] = (
        [label, *(_share(shape.labels.get(label, 0), shape.rows) for shape in shapes.values())] for label in labels
    )
    return show.table("rows by label", ["", *shapes], [*rows, ["all", *(str(s.rows) for s in shapes.values())]])


def _share(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.1%})"


def _examples(kind: str, changes: Sequence[Change], limit: int, what: Any) -> str:
    if not changes or not limit:
        return ""
    more = f" (first {limit} of {len(changes)})" if len(changes) > limit else ""
    return show.table(f"{kind}{more}", ["", "input"], ([what(c), c.input[:90]] for c in changes[:limit]))


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "no run has used it"
    rows = ([run["id"][:8], run["name"], run["status"].lower(), _when(run["start"])] for run in runs)
    return show.table("runs that used it", ["run", "kind", "status", "started"], rows)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
