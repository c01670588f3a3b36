"""What a person reads of jobs' results on a terminal."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.store.registry import ModelVersion
from jobs.data.dataset import DatasetVersion
from jobs.data.split import SPLITS
from jobs.forgetting.forgetting import Forgetting

from .sweep.record import Importance, Swept

_ANY = 10_000  # characters of a line that is never folded


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = 120) -> str:
    """A plain table as text, no wider than `width` characters, None for any; numbers are the caller's to format."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        made.add_column(name)
    for row in rows:
        made.add_row(*map(str, row))
    out = io.StringIO()
    Console(file=out, width=width or _ANY, highlight=False, markup=False).print(made)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def dataset(made: DatasetVersion) -> str:
    counts = table(
        f"dataset {made.name}/{made.version}",
        ["split", *made.listed, "rows"],
        ([split, *made.counts[split].values(), made.size(split)] for split in SPLITS),
    )
    dropped = ", ".join(f"{n} {reason}" for reason, n in made.dropped.items()) or "nothing"
    return f"{counts}\ndropped: {dropped}"


def sweep(swept: Swept) -> str:
    keys = list(swept.trials[0].values)
    ranked = sorted(swept.trials, key=lambda t: (t.validation_loss is None, t.validation_loss))
    rows = (
        [
            t.id,
            *(_value(t.values[k]) for k in keys),
            _number(t.validation_loss),
            _number(t.validation_accuracy),
            f"{t.epochs:.1f}",
            t.error or t.status,
        ]
        for t in ranked
    )
    ranking = table("sweep, best first", ["trial", *keys, "validation loss", "accuracy", "epochs", ""], rows)
    return f"{ranking}\nimportance: {_importance(swept.importance)}"


def _importance(found: Importance) -> str:
    if found.note or not found.shares:
        return f"not told; {found.note or 'no key had two values'}"
    shares = ", ".join(f"{key} {share:.2f}" for key, share in found.shares.items())
    return f"{shares} of the variance of the loss after {found.epochs:g} epochs, {found.trials} trials"


def forgetting(found: Forgetting) -> str:
    """All attempts of a retraining beside the model they started from."""
    rows = [["before", "", "", f"{found.before.anchor:.3f}", "", _share(found.before.new), ""]]
    for index, made in enumerate(found.attempts):
        recipe, after = made.recipe, made.measured
        held = f"{recipe.ewc_lambda:g}" if recipe.ewc_lambda else ""
        numbers = [f"{after.anchor:.3f}", f"{100 * made.loss:+.1f}", _share(after.new)]
        mark = "published" if index == found.published else ""
        rows.append([recipe.name, f"{recipe.replay:g}", held, *numbers, mark])
    title = f"{found.metric} on {found.anchor} ({found.rows}); it may lose {100 * found.budget:.1f} points"
    return table(title, ["attempt", "replay", "ewc lambda", "anchor", "lost, points", "new rows", ""], rows)


def versions(found: Sequence[ModelVersion]) -> str:
    if not found:
        return "no model is registered yet; `rehone train SPEC` makes one"
    rows = (
        [v.model, v.version, ", ".join(v.aliases), v.tags.get("dataset", ""), v.run[:8], _when(v.created)]
        for v in found
    )
    return table("", ["model", "version", "alias", "dataset", "run", "created"], rows)


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
