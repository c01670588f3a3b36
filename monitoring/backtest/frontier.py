"""What a person sees of a backtest: a table, and a picture of accuracy against cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.errors import UserError
from jobs import show

from .backtest import LAST, RETRAININGS, Backtest, Outcome
from .variants import ALWAYS


def table(made: Backtest) -> str:
    priced = made.unit != RETRAININGS
    always = next(one for one in made.outcomes if one.policy == ALWAYS)
    rows = (
        [
            one.policy,
            one.window,
            f"{one.accuracy:.3f}",
            f"{100 * (one.accuracy - always.accuracy):+.1f}",
            "" if one.last is None else f"{one.last:.3f}",
            len(one.retrained),
            *([f"{one.cost:.3g}"] * priced),
            f"{one.share:.0%}",
        ]
        for one in made.outcomes
    )
    title = f"{made.model}: {made.rows} rows, {made.labels} labelled, known {made.label_delay} window(s) later"
    head = ["policy", "window", "accuracy", "points", f"last {LAST}", RETRAININGS, *([made.unit] * priced), "share"]
    legend = f"points and share: against {ALWAYS}; last {LAST}: accuracy in the last {LAST} windows of {made.window}"
    return "\n".join([show.table(title, head, rows), "", f"{legend}.", made.note])


def draw(made: Backtest, path: Path) -> None:
    """Accuracy against cost, a point a policy, and accuracy over the log with its retrainings, as PNG.

    Raises UserError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    cost, time = figure.subplots(1, 2, width_ratios=[2, 3])
    middle = max(one.cost for one in made.outcomes) / 2
    for at, one in enumerate(made.outcomes):
        _point(cost, one, f"C{at}", left=one.cost > middle)
        # Lines often lie on each other: those below are wider.
        _line(time, one, made.window, f"C{at}", width=1 + 0.6 * (len(made.outcomes) - 1 - at))
    axis = RETRAININGS if made.unit == RETRAININGS else f"cost of retraining, {made.unit}"
    cost.set(xlabel=axis, ylabel="accuracy over the log", title=f"{made.model}: the price")
    time.set(
        xlabel="rows of the log", ylabel=f"accuracy in windows of {made.window}", title="over time (mark: a retraining)"
    )
    cost.margins(0.15)
    for axes in (cost, time):
        axes.grid(alpha=0.3)
    time.legend(fontsize="small")
    figure.supxlabel(made.note, fontsize="x-small", color="tab:gray", wrap=True)
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path), mend="name another file") from None


def _point(axes: Any, one: Outcome, colour: str, *, left: bool) -> None:
    axes.plot([one.cost], [one.accuracy], "o", color=colour)
    where = {"xytext": (-5, 5), "ha": "right"} if left else {"xytext": (5, 5), "ha": "left"}
    axes.annotate(one.policy, (one.cost, one.accuracy), textcoords="offset points", color=colour, **where)


def _line(axes: Any, one: Outcome, window: int, colour: str, width: float) -> None:
    """A window is drawn at its middle; a retraining at the first window that it answers."""
    known = {at * window: value for at, value in enumerate(one.over_time) if value is not None}
    axes.plot([at + window / 2 for at in known], list(known.values()), color=colour, label=one.policy, linewidth=width)
    marked = sorted({row // window * window for row in one.retrained} & known.keys())
    axes.plot([at + window / 2 for at in marked], [known[at] for at in marked], "o", color=colour)
