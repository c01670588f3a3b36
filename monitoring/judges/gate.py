"""The gate: is the challenger good enough to serve? A pure function over the answers of both models to the same rows.

Better where it should be is a one-sided test at level `evaluation.alpha`; a first version is held against the commonest
label. The forgetting budget `max_loss_on_old` is on the measured values: it is a promise about what the holdout shows,
and a test of it would let a small holdout forget more than a large one. What else a challenger may not do is in
`harm.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from jobs.data.dataset import NEW, OLD
from jobs.evaluation.footprint import Ratios
from jobs.spec import EvaluationSpec
from jobs.targets import Targets, label

from . import harm, paired
from .harm import Check
from .paired import Compared

BETTER, BUDGET = "better", "forgetting"
_ROUNDING = 1e-12
_SHOWN = 60  # characters of the commonest target


@dataclass(frozen=True)
class Verdict:
    """`numbers` of the metric: `<part>_champion`, `<part>_challenger`, `<part>_p_value`, ... for each part judged.

    `reasons` are for people: the checks that decide, and those of the others that failed. `checks` are all of them.
    """

    promote: bool
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]
    checks: tuple[Check, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Verdict:
        checks = tuple(Check(**check) for check in tree["checks"])
        return cls(tree["promote"], tuple(tree["reasons"]), tree["numbers"], checks)


def first(rows: pd.DataFrame, spec: EvaluationSpec, targets: Targets = label) -> Verdict:
    """Of the first version of a model: it must beat the answer that needs no model, always the commonest one.

    `rows` as below, without `champion`.
    """
    old = rows[rows["slice"] == OLD]
    commonest = str(old["true"].mode()[0])
    found = _compare(old.assign(champion=commonest), spec, targets)
    passed = _is_better(found, spec)
    verdict = "better than" if passed else "no better than"
    said = (
        f"first version, {spec.metric} {found.challenger:.3f} on {found.rows} rows ({verdict} always answering "
        f"{commonest[:_SHOWN]!r}, {found.champion:.3f}: p {found.p_better:.2g} {'<=' if passed else '>'} "
        f"{spec.alpha:g})"
    )
    numbers = {f"{OLD}_challenger": found.challenger, f"{OLD}_commonest": found.champion, "p_value": found.p_better}
    return Verdict(promote=passed, reasons=(said,), numbers=numbers)


def judge(rows: pd.DataFrame, ratios: Ratios, spec: EvaluationSpec, targets: Targets = label) -> Verdict:
    """Promote a challenger that is better where it should be and does no harm elsewhere.

    `rows`: `true, champion, challenger, slice` (old or new), and columns that begin with BY. After a retraining there
    are rows of the new kind: better on `new`, at most `max_loss_on_old` worse on `old`. Otherwise: better on `old`, the
    one holdout there is.
    """
    parts = {str(name): part for name, part in rows.groupby("slice", sort=False)}
    found = {name: _compare(part, spec, targets) for name, part in parts.items()}
    deciding = NEW if NEW in found else OLD
    main = [_better(deciding, found[deciding], spec)]
    if deciding == NEW:
        main.append(_budget(found[OLD], spec))
    others = [*harm.slices(parts, spec), *harm.costs(ratios, spec)]
    checks = (*main, *others)
    return Verdict(
        promote=all(check.passed for check in checks),
        reasons=tuple(check.said for check in (*main, *(c for c in others if not c.passed))),
        numbers={f"{name}_{key}": value for name, one in found.items() for key, value in _numbers(one).items()},
        checks=checks,
    )


def _compare(rows: pd.DataFrame, spec: EvaluationSpec, targets: Targets) -> Compared:
    answers = rows["true"].to_numpy(), rows["champion"].to_numpy(), rows["challenger"].to_numpy()
    drawn: Any = {"resamples": spec.bootstrap, "confidence": spec.confidence}
    return paired.compare(*answers, metric=spec.metric, targets=targets, **drawn)


def _better(part: str, found: Compared, spec: EvaluationSpec) -> Check:
    passed = _is_better(found, spec)
    if passed:
        verdict = f"better: p {found.p_better:.2g} <= {spec.alpha:g}"
    elif found.gain > _ROUNDING:
        verdict = f"may be chance: p {found.p_better:.2g} > {spec.alpha:g}, {found.won} rows won and {found.lost} lost"
    else:
        verdict = "not better"
    return Check(BETTER, part, passed, f"{_said(part, found, spec)}, {verdict})", _numbers(found))


def _is_better(found: Compared, spec: EvaluationSpec) -> bool:
    return found.gain > _ROUNDING and found.p_better <= spec.alpha


def _budget(found: Compared, spec: EvaluationSpec) -> Check:
    passed = found.gain >= -spec.max_loss_on_old - _ROUNDING
    verdict = f"{'within' if passed else 'more than'} the {100 * spec.max_loss_on_old:.1f} it may lose"
    numbers = {**_numbers(found), "budget": spec.max_loss_on_old}
    return Check(BUDGET, OLD, passed, f"{_said(OLD, found, spec)}, {verdict})", numbers)


def _said(part: str, found: Compared, spec: EvaluationSpec) -> str:
    return (
        f"{spec.metric} {found.challenger:.3f} against the champion's {found.champion:.3f} on {found.rows} {part} rows "
        f"({100 * found.gain:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    )


def _numbers(found: Compared) -> dict[str, float]:
    named = ("champion", "challenger", "gain", "low", "high", "rows", "won", "lost")
    return {name: float(getattr(found, name)) for name in named} | {
        "p_value": found.p_better,
        "p_value_of_harm": found.p_worse,
    }
