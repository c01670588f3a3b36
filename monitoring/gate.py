"""The gate: is the challenger good enough to serve? A pure function over Scorecards made on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.dataset import NEW, OLD
from jobs.scorecard import Scorecard
from jobs.spec import EvaluationSpec

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Verdict:
    """`numbers`: `<slice>_champion`, `<slice>_challenger` of the metric, for each slice that was judged."""

    promote: bool
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    champion: Mapping[str, Scorecard] | None, challenger: Mapping[str, Scorecard], spec: EvaluationSpec
) -> Verdict:
    """Promote a challenger that is better where it should be and loses at most `max_loss_on_old` elsewhere.

    After a retraining there are rows of the new kind: better on `new`, not much worse on `old`. Otherwise: better on
    `old`, the one holdout there is. The first version of a model has nobody to beat.
    """
    if champion is None:
        value = challenger[OLD].metrics[spec.metric].value
        why = f"first version, {spec.metric} {value:.3f} on {challenger[OLD].rows} rows"
        return Verdict(promote=True, reasons=(why,), numbers={f"{OLD}_challenger": value})
    numbers = {
        f"{name}_{who}": cards[name].metrics[spec.metric].value
        for name in challenger
        for who, cards in (("champion", champion), ("challenger", challenger))
    }
    gains = {name: numbers[f"{name}_challenger"] - numbers[f"{name}_champion"] for name in challenger}
    deciding = NEW if NEW in challenger else OLD
    passed = {deciding: gains[deciding] > _ROUNDING}
    if deciding == NEW:
        passed[OLD] = gains[OLD] >= -spec.max_loss_on_old - _ROUNDING
    reasons = tuple(_reason(name, good, numbers, spec, challenger[name].rows) for name, good in passed.items())
    return Verdict(all(passed.values()), reasons, numbers)


def _reason(name: str, good: bool, numbers: Mapping[str, float], spec: EvaluationSpec, rows: int) -> str:
    ours, theirs = numbers[f"{name}_challenger"], numbers[f"{name}_champion"]
    points = 100 * (ours - theirs)
    said = f"{spec.metric} {ours:.3f} against the champion's {theirs:.3f} on {rows} {name} rows ({points:+.1f} points"
    if name == OLD and f"{NEW}_champion" in numbers:
        return f"{said}, {'within' if good else 'more than'} the {100 * spec.max_loss_on_old:.1f} it may lose)"
    return f"{said}, {'better' if good else 'not better'})"
