"""What a challenger may not do, however good it is on the whole: fail a slice, answer slowly, grow large. Pure.

A slice refuses only when its accuracy fell by more than `evaluation.max_loss_on_slice` and chance does not explain that
it fell: one-sided exact McNemar tests at level `evaluation.alpha` over all slices together (Holm 1979). Slices under
`evaluation.min_slice_rows` are reported and not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from jobs.evaluation import slices as slices_
from jobs.evaluation.footprint import Ratios
from jobs.spec import EvaluationSpec

from . import paired

SLICE, LATENCY, SIZE = "slice", "latency", "size"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Check:
    """One rule on one part. `judged` is False where there was too little to judge by; then it passes."""

    rule: str
    on: str
    passed: bool
    said: str
    numbers: Mapping[str, float]
    judged: bool = True


@dataclass(frozen=True)
class _Slice:
    """Both models on the rows of one slice."""

    name: str
    rows: int
    champion: float
    challenger: float
    won: int
    lost: int

    @property
    def gain(self) -> float:
        return (self.won - self.lost) / self.rows

    @property
    def said(self) -> str:
        values = f"accuracy {self.challenger:.3f} against the champion's {self.champion:.3f}"
        return f"{values} on {self.rows} rows of {self.name} ({100 * self.gain:+.1f} points"

    @property
    def numbers(self) -> dict[str, float]:
        named = ("rows", "champion", "challenger", "gain", "won", "lost")
        return {name: float(getattr(self, name)) for name in named}


def slices(parts: Mapping[str, pd.DataFrame], spec: EvaluationSpec) -> list[Check]:
    """A check for each slice of each part (rows as `gate.judge` has them), largest loss first, unjudged ones last."""
    found = [one for part, rows in parts.items() for one in _of(part, rows)]
    found.sort(key=lambda s: (s.rows < spec.min_slice_rows, s.gain, s.name))
    judged = [s for s in found if s.rows >= spec.min_slice_rows]
    p_values = [paired.mcnemar(s.lost, s.won) for s in judged]
    checks = [_judged(*tested, spec) for tested in zip(judged, p_values, paired.holm(p_values), strict=True)]
    few = f"too few to judge by, {spec.min_slice_rows} needed)"
    return checks + [
        Check(SLICE, s.name, True, f"{s.said}, {few}", s.numbers, judged=False) for s in found[len(judged) :]
    ]


def costs(ratios: Ratios, spec: EvaluationSpec) -> list[Check]:
    """Latency, beyond its limit for certain and not by a busy machine's noise; size."""
    return [
        _cost(LATENCY, "latency", ratios.latency, ratios.latency_low, spec.max_latency_ratio),
        _cost(SIZE, "weights", ratios.size, ratios.size, spec.max_size_ratio),
    ]


def _of(part: str, rows: pd.DataFrame) -> Iterator[_Slice]:
    true, champion, challenger = (rows[column].to_numpy() for column in ("true", "champion", "challenger"))
    ours, theirs = true == champion, true == challenger
    for column, value, inside in slices_.parts(rows):
        one, other = ours[inside], theirs[inside]
        yield _Slice(
            name=f"{part}, {column} {value}",
            rows=len(one),
            champion=float(one.mean()),
            challenger=float(other.mean()),
            won=int((other & ~one).sum()),
            lost=int((one & ~other).sum()),
        )


def _judged(found: _Slice, p_value: float, adjusted: float, spec: EvaluationSpec) -> Check:
    beyond = found.gain < -spec.max_loss_on_slice - _ROUNDING
    passed = not beyond or adjusted > spec.alpha
    numbers = {
        **found.numbers,
        "p_value_of_harm": p_value,
        "adjusted_p_value": adjusted,
        "budget": spec.max_loss_on_slice,
    }
    verdict = "no harm"
    if beyond:
        may = "may be chance" if passed else f"more than the {100 * spec.max_loss_on_slice:.1f} it may lose"
        verdict = f"{may}: p {adjusted:.2g} {'>' if passed else '<='} {spec.alpha:g}"
    return Check(SLICE, found.name, passed, f"{found.said}, {verdict})", numbers)


def _cost(rule: str, what: str, ratio: float, low: float, limit: float | None) -> Check:
    passed = limit is None or low <= limit
    verdict = "not judged" if limit is None else f"{'within' if passed else 'more than'} the {limit:g} it may have"
    numbers = {"ratio": ratio, "low": low} | ({} if limit is None else {"limit": limit})
    said = f"{what} {ratio:.2f} times the champion's ({verdict})"
    return Check(rule, "model", passed, said, numbers, judged=limit is not None)
