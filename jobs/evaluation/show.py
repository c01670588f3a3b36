"""What a person reads of a Scorecard on a terminal, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.show import table

from .evaluate import Evaluation
from .footprint import Footprint
from .robustness import Robustness
from .scorecard import Interval, Scorecard
from .slices import Gap, Slice

_MEGABYTE = 1e6
_A_LINE = 3


def evaluation(made: Evaluation) -> str:
    known = [_robustness(made.robustness)] if made.robustness else []
    return "\n\n".join([scorecards(made.scorecards), *known, _footprint(made.footprint)])


def scorecards(cards: Mapping[str, Scorecard]) -> str:
    return "\n\n".join(_scorecard(name, card) for name, card in cards.items())


def _scorecard(name: str, card: Scorecard) -> str:
    closed, title = bool(card.confusion), f"test rows, {name}: {card.rows}"
    rows = (
        [label, f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", s.support, *said]
        for (label, s), said in zip(card.per_label.items(), card.confusion or ((),) * len(card.per_label), strict=True)
    )
    others = (f"as {label}" for label in card.labels if closed)
    head = ["true label", "precision", "recall", "f1", "rows" if closed else "times", *others]
    metrics = [f"{metric} {_interval(value)}" for metric, value in card.metrics.items()]
    lines = ("   ".join(metrics[at : at + _A_LINE]) for at in range(0, len(metrics), _A_LINE))
    said = [table(title, head, rows) if card.per_label else title, *lines]
    if card.calibration is not None:
        sure = card.calibration
        verdict = "no more than chance gives" if sure.error <= sure.by_chance else "more than chance gives"
        said.append(f"calibration error {sure.error:.3f}, {verdict} ({sure.by_chance:.3f})")
    if card.slices:
        said += ["", _slices(f"slices of {name}, worst first", card.slices, card.accuracy)]
    if card.gaps:
        said += ["", _gaps(card.gaps)]
    return "\n".join(said)


def _slices(title: str, found: Sequence[Slice], whole: float) -> str:
    rows = (
        [
            s.column,
            s.value,
            s.rows,
            f"{s.accuracy:.3f} [{s.low:.3f}, {s.high:.3f}]",
            f"{100 * (s.accuracy - whole):+.1f}",
            "" if s.enough else "too few rows to judge by",
        ]
        for s in found
    )
    return table(title, ["slice by", "value", "rows", "accuracy", "points off the whole", ""], rows)


def _gaps(found: Sequence[Gap]) -> str:
    rows = (
        [
            g.column,
            f"{100 * g.accuracy:.1f}",
            f"{g.worst} < {g.best}",
            f"{g.p_value:.2g}",
            f"{100 * g.predicted:.1f}",
            g.label,
        ]
        for g in found
    )
    head = ["gaps between", "accuracy, points", "", "p of no gap", "share predicted, points", "as"]
    return table("", head, rows)


def _robustness(found: Sequence[Robustness]) -> str:
    rows = (
        [r.change, r.touched, f"{r.accuracy_before:.3f} -> {r.accuracy:.3f}", f"{100 * r.changed:.1f}%"] for r in found
    )
    title = f"the same inputs, written otherwise ({found[0].rows})"
    return table(title, ["change", "inputs it touches", "accuracy", "answers that change"], rows)


def _footprint(found: Footprint) -> str:
    times = ", ".join(f"{t.median_ms:.1f} ms for {t.batch} (p95 {t.p95_ms:.1f})" for t in found.latencies)
    sizes = (found.weight_bytes / _MEGABYTE, found.file_bytes / _MEGABYTE)
    return f"latency here: {times}; weights {sizes[0]:.1f} MB in memory, files {sizes[1]:.1f} MB"


def _interval(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
