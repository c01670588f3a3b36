"""Which points a sweep tries: drawn, a grid, or proposed by TPE. Each resolved point comes once. No Ray here."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import warnings
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobs.spec import Range, Spec, field_type

from .record import Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Asked

_LISTED = 10_000
"""Combinations up to which a space is counted out; a larger one is as good as endless."""
_DRAWS = 100


class Points:
    """Points one after another. `known` are trials that have an outcome already: they come no more, and TPE knows them.

    The same spec gives the same points, whichever of them are known (not TPE: it goes by what came of them).
    """

    def __init__(self, spec: Spec, known: Iterable[Trial] = ()) -> None:
        self._spec = spec
        self._grid = grid(spec)
        self._axes = axes(spec)
        self._study = study(sampler(spec))
        self._asked: dict[str, Asked] = {}
        self._seen: set[str] = set()
        self.exhausted = False
        for trial in known:
            self._seen.add(trial.id)
            add(self._study, spec, trial)

    def next(self) -> dict[str, Any] | None:
        """None when every combination has been tried."""
        point = self._next()
        self.exhausted = point is None
        return point

    def _next(self) -> dict[str, Any] | None:
        if self._grid is not None and all(name(point) in self._seen for point in self._grid):
            return None
        if self._spec.sweep.algorithm != "grid":
            for _ in range(_DRAWS + len(self._seen)):
                point = self._ask()
                if point is not None:
                    return point
        for point in self._grid or ():
            if name(point) not in self._seen:
                self._study.enqueue_trial(params(self._spec, point))
                return self._ask()
        return None

    def _ask(self) -> dict[str, Any] | None:
        """None when what came was there before."""
        from optuna.trial import TrialState

        asked = self._study.ask(self._axes)
        point = resolved(self._spec, values(self._spec, asked.params))
        if name(point) in self._seen:
            self._study.tell(asked, state=TrialState.FAIL)
            return None
        self._seen.add(name(point))
        self._asked[name(point)] = asked
        return point

    def told(self, trial: Trial) -> None:
        """What came of a point."""
        from optuna.trial import TrialState

        asked = self._asked.pop(trial.id)
        for step, (_, loss) in enumerate(trial.losses):
            if math.isfinite(loss):
                asked.report(loss, step)
        state = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}.get(trial.status, TrialState.FAIL)
        self._study.tell(asked, trial.validation_loss if state is TrialState.COMPLETE else None, state)


def wanted(spec: Spec) -> int:
    """How many points the sweep has: all of a grid, else `trials` or as many as there are."""
    combinations = grid(spec)
    if combinations is None:
        return spec.sweep.trials
    return len(combinations) if spec.sweep.algorithm == "grid" else min(spec.sweep.trials, len(combinations))


def grid(spec: Spec) -> list[dict[str, Any]] | None:
    """Every combination of the choices once, in an order that the seed gives; None when they cannot be counted out.

    Not in the order written: ASHA judges a trial by those before it, which should not all be slow learners.
    """
    choices = {key: wanted.choice for key, wanted in spec.sweep.search.items()}
    listed = [options for options in choices.values() if options is not None]
    unlisted = len(listed) < len(choices)
    if spec.sweep.algorithm != "grid" and (unlisted or math.prod(map(len, listed)) > _LISTED):
        return None
    points = (resolved(spec, dict(zip(choices, options, strict=True))) for options in itertools.product(*listed))
    made = list({name(point): point for point in points}.values())
    random.Random(spec.training.seed).shuffle(made)  # noqa: S311 - an order, not a secret
    return made


def resolved(spec: Spec, point: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the spec holds them: 8.0 and "8" are both rank 8. As they are when the spec refuses them."""
    try:
        made = spec.with_values(dict(point))
    except ValidationError:
        return dict(point)
    return held(made, point)


def held(spec: Spec, keys: Iterable[str]) -> dict[str, Any]:
    """What the spec says under dotted keys, as plain values."""
    tree = spec.model_dump(mode="json")
    return {key: reduce(lambda at, part: at[part], key.split("."), tree) for key in keys}


def name(point: Mapping[str, Any]) -> str:
    """Eight hex digits of its values."""
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]


def axes(spec: Spec) -> dict[str, BaseDistribution]:
    return {key: _axis(key, wanted) for key, wanted in spec.sweep.search.items()}


def _axis(key: str, wanted: Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if wanted.choice is not None:  # by place: Optuna takes no lists as choices
        return CategoricalDistribution(list(range(len(wanted.choice))))
    ends = wanted.uniform or wanted.loguniform
    assert ends is not None
    log = wanted.loguniform is not None
    if field_type(key) is int:
        return IntDistribution(int(ends[0]), int(ends[1]), log=log)
    return FloatDistribution(*ends, log=log)


def values(spec: Spec, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's parameters as values of the spec."""
    choices = {key: wanted.choice for key, wanted in spec.sweep.search.items()}
    return {key: value if (options := choices[key]) is None else options[value] for key, value in drawn.items()}


def params(spec: Spec, point: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the spec as Optuna's parameters."""
    return {key: _param(spec, key, value) for key, value in point.items()}


def _param(spec: Spec, key: str, value: Any) -> Any:
    options = spec.sweep.search[key].choice
    if options is None:
        return value
    places = (at for at, option in enumerate(options) if value in (option, resolved(spec, {key: option})[key]))
    return next(places)


def sampler(spec: Spec) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if spec.sweep.algorithm != "tpe":
        return RandomSampler(seed=spec.training.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar, which keeps trials side by side apart, counts as experimental
        first = min(10, max(3, spec.sweep.trials // 3))  # drawn at random before there is something to go by
        return TPESampler(seed=spec.training.seed, n_startup_trials=first, constant_liar=True)


def study(by: BaseSampler | None = None) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=by)


def add(to: Study, spec: Spec, trial: Trial) -> None:
    """A trial of before, as it ended."""
    from optuna.trial import TrialState, create_trial

    state = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}.get(trial.status, TrialState.FAIL)
    to.add_trial(
        create_trial(
            state=state,
            value=trial.validation_loss if state is TrialState.COMPLETE else None,
            params=params(spec, trial.values),
            distributions=axes(spec),
            intermediate_values={at: loss for at, (_, loss) in enumerate(trial.losses) if math.isfinite(loss)},
        )
    )
