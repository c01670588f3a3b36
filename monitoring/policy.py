"""The policy: what follows from a window. A pure function, so that every decision can be replayed and explained.

An alarm is drift in `consecutive` windows in a row, accuracy that fell by more than `accuracy_drop` (measured, or
estimated while labels are few), the champion's age, or so many new labels that they are worth a retraining. Drift that
labels show not to hurt is told, and nothing follows. Any other alarm retrains when enough labels have come in, the last
retraining is long enough ago, none is running, nothing is on trial, the budget allows and nobody has paused it;
otherwise it waits. Age needs
labels like the others: without new rows a retraining ends at the model there already is. A champion that labels show to
be worse than the version before it is rolled back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.spec import MonitoringSpec

from .budget import Cost
from .drift.compare import EMBEDDING, ColumnDrift
from .drift.detect import DriftResult
from .judges.regression import Regression
from .windows import ENOUGH_LABELS

_SURE = 0.05  # chance that drift which hurts is taken for drift that does not

KEEP, WAIT, RETRAIN, ROLL_BACK = "keep", "wait", "retrain", "roll back"


@dataclass(frozen=True)
class Decision:
    """`action` is keep, wait, retrain or roll back; `in_a_row` counts drifted windows of this version up to this one.

    `accuracy` is of the `labelled` rows that were looked at, `estimated_accuracy` of confidences, `labels_waiting` of
    what no retraining has used. `price` and `spent` are device-hours (`budget.py`). `regression` compares the champion
    with the version before it, which a roll back goes to. `page` shows what drifted: a path under the storage root.
    """

    model: str
    version: int
    number: int
    at: datetime
    action: str
    reasons: tuple[str, ...]
    alarm: bool
    drifted: bool
    in_a_row: int
    accuracy: float | None
    labelled: int
    estimated_accuracy: float
    reference_accuracy: float
    labels_waiting: int
    price: float | None
    spent: float
    regression: Regression | None
    page: str

    @property
    def key(self) -> str:
        """Of the window it was made on."""
        return f"{self.version}-{self.number}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: the time in ISO 8601."""
        return asdict(self) | {"at": self.at.isoformat()}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Decision:
        regression = Regression.from_dict(tree["regression"])
        return cls(
            **{
                **tree,
                "at": datetime.fromisoformat(tree["at"]),
                "reasons": tuple(tree["reasons"]),
                "regression": regression,
            }
        )


@dataclass(frozen=True)
class _Finding:
    """One thing that was looked at."""

    holds: bool
    said: str


def decide(
    result: DriftResult,
    history: Sequence[Decision],
    now: datetime,
    spec: MonitoringSpec,
    *,
    labels_waiting: int,
    champion_age: timedelta,
    running: bool,
    cost: Cost,
    regression: Regression | None,
    paused: str = "",
) -> Decision:
    """What to do after one window. `history` are this model's earlier decisions, oldest first.

    `paused` says who keeps the watch from acting, and why; "" where nobody does.
    """
    in_a_row = _in_a_row(result, history)
    drift, accuracy = _drift(result, in_a_row, spec), _accuracy(result, spec)
    others = [accuracy, *_age(champion_age, spec), *_labels(labels_waiting, spec)]
    alarms = [drift, *others]
    alarm = any(found.holds for found in alarms)
    harmless = _harmless(result, spec) if alarm and not any(found.holds for found in others) else []
    budget = _budget(cost, spec)
    refusals = [
        *_refusals(history, now, spec, labels_waiting=labels_waiting, running=running),
        *(found.said for found in budget if not found.holds),
        *([paused] if paused else []),
    ]
    action = KEEP if harmless or not alarm else WAIT if refusals else RETRAIN
    ready = f"{labels_waiting} of {spec.min_labels} labels, cooldown clear"
    consequence = {KEEP: harmless, WAIT: refusals, RETRAIN: [ready, *(found.said for found in budget)]}[action]
    if regression is not None:
        action = action if not regression.worse else WAIT if paused else ROLL_BACK
        consequence = [*consequence, regression.said, *([paused] if paused and regression.worse else [])]
    return Decision(
        model=result.model,
        version=result.version,
        number=result.number,
        at=now,
        action=action,
        reasons=(*(found.said for found in alarms), *consequence),
        alarm=alarm,
        drifted=result.drifted,
        in_a_row=in_a_row,
        accuracy=result.accuracy,
        labelled=result.labelled,
        estimated_accuracy=result.estimated.accuracy,
        reference_accuracy=result.reference_accuracy,
        labels_waiting=labels_waiting,
        price=cost.price,
        spent=cost.spent,
        regression=regression,
        page=result.page,
    )


def chance_of_at_most(correct: int, rows: int, accuracy: float) -> float:
    """P(X <= correct) of a binomial X with `rows` trials and 0 < accuracy < 1: the exact one-sided binomial test."""
    log_p, log_q = math.log(accuracy), math.log1p(-accuracy)
    terms = (
        math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) + k * log_p + (rows - k) * log_q
        for k in range(correct + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _in_a_row(result: DriftResult, history: Sequence[Decision]) -> int:
    count = int(result.drifted)
    for earlier in reversed(history):
        if not count or earlier.version != result.version or not earlier.drifted:
            break
        count += 1
    return count


def _drift(result: DriftResult, in_a_row: int, spec: MonitoringSpec) -> _Finding:
    moved = [column for column in result.columns if column.drifted]
    if not moved:
        return _Finding(False, f"no drift in {len(result.columns)} columns")
    said = f"{len(moved)}/{len(result.columns)} columns drifted ({', '.join(map(_column, moved))})"
    return _Finding(in_a_row >= spec.consecutive, f"{said}, {in_a_row} in a row, {spec.consecutive} needed")


def _column(column: ColumnDrift) -> str:
    if column.name == EMBEDDING:
        return f"{column.name} {column.score:.4f} > {column.threshold:.4f}"
    return f"{column.name} p {column.score:.2g} <= {column.threshold:.2g}"


def _accuracy(result: DriftResult, spec: MonitoringSpec) -> _Finding:
    if result.accuracy is None or result.labelled < ENOUGH_LABELS:
        return _estimated(result, spec)
    ours, theirs, allowed = result.accuracy, result.reference_accuracy, 100 * spec.accuracy_drop
    said = f"accuracy {ours:.3f} vs {theirs:.3f} on {result.labelled} rows ({100 * (ours - theirs):+.1f} points"
    # Lower than the reference by more than is allowed, and by more than chance explains.
    bound = theirs - spec.accuracy_drop
    if ours >= bound or bound <= 0:
        return _Finding(False, f"{said}, {allowed:.1f} may be lost)")
    chance = chance_of_at_most(round(ours * result.labelled), result.labelled, bound)
    holds = chance <= spec.level
    verdict = f"p {chance:.2g} {'<=' if holds else '>'} {spec.level:g}"
    return _Finding(holds, f"{said}, more than {allowed:.1f}; {verdict})")


def _estimated(result: DriftResult, spec: MonitoringSpec) -> _Finding:
    found, theirs, allowed = result.estimated, result.reference_accuracy, 100 * spec.accuracy_drop
    said = (
        f"accuracy not measured: {result.labelled} of {ENOUGH_LABELS} labels; estimated {found.accuracy:.3f} "
        f"[{found.low:.3f}, {found.high:.3f}] vs {theirs:.3f} ({100 * (found.accuracy - theirs):+.1f} points"
    )
    # The whole interval must lie below what is allowed.
    holds = found.high < theirs - spec.accuracy_drop
    return _Finding(holds, f"{said}, {'surely more than' if holds else 'not surely more than'} {allowed:.1f})")


def _harmless(result: DriftResult, spec: MonitoringSpec) -> list[str]:
    """That accuracy has not fallen by more than is allowed, where labels show it; not where they are too few to."""
    bound = result.reference_accuracy - spec.accuracy_drop
    if result.accuracy is None or result.labelled < ENOUGH_LABELS or bound <= 0:
        return []
    right = round(result.accuracy * result.labelled)
    chance = 1 - chance_of_at_most(right - 1, result.labelled, bound) if right else 1.0
    said = f"the drift does not hurt: accuracy is above {bound:.3f}, p {chance:.2g} <= {_SURE:g}"
    return [said] if chance <= _SURE else []


def _age(age: timedelta, spec: MonitoringSpec) -> list[_Finding]:
    if spec.max_age_days is None:
        return []
    days, old = age / timedelta(days=1), age > timedelta(days=spec.max_age_days)
    return [_Finding(old, f"champion is {days:.1f} days old, {'over' if old else 'of'} {spec.max_age_days:g}")]


def _labels(waiting: int, spec: MonitoringSpec) -> list[_Finding]:
    if spec.new_labels is None:
        return []
    return [_Finding(waiting >= spec.new_labels, f"{waiting} new labels, {spec.new_labels} are worth a retraining")]


def _budget(cost: Cost, spec: MonitoringSpec) -> list[_Finding]:
    """Whether the next retraining is paid for; its price is not known before one has ended."""
    if spec.budget_hours is None:
        return []
    left = spec.budget_hours - cost.spent
    price = "a retraining's price is not known yet" if cost.price is None else f"a retraining takes {cost.price:.3g} h"
    said = f"{price}, {max(left, 0):.3g} of {spec.budget_hours:.3g} device-hours left in 30 days"
    return [_Finding(left > 0 and (cost.price or 0) <= left, said)]


def _refusals(
    history: Sequence[Decision], now: datetime, spec: MonitoringSpec, *, labels_waiting: int, running: bool
) -> list[str]:
    found = []
    if labels_waiting < spec.min_labels:
        found.append(f"{labels_waiting} of {spec.min_labels} labels needed")
    last = max((earlier for earlier in history if earlier.action in {RETRAIN, ROLL_BACK}), key=_at, default=None)
    if last is not None and now - last.at < timedelta(minutes=spec.cooldown_minutes):
        minutes, what = (now - last.at) / timedelta(minutes=1), "retraining" if last.action == RETRAIN else last.action
        found.append(f"last {what} {minutes:.1f} of {spec.cooldown_minutes:g} minutes ago")
    if running:
        found.append("a retraining is running")
    return found


def _at(decision: Decision) -> datetime:
    return decision.at
