"""A prediction log replayed under several policies: what accuracy each would have had, at what cost of retraining.

`policy.decide` decides here as it does in production. What answers is a surrogate (`replay.py`), so accuracies rank
policies and are no forecast. Nothing is decided after the last window: a retraining there would answer nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cluster.console import say
from cluster.errors import DataError
from jobs import tasks
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import budget, journal
from monitoring import policy as policy_
from monitoring.budget import MONTH, Cost
from monitoring.drift.detect import DriftResult
from monitoring.journal import Journal
from monitoring.policy import RETRAIN, Decision
from monitoring.windows import ENOUGH_LABELS

from .recording import Embed, embeddings, gather
from .replay import Replay
from .variants import ALWAYS, Policy

SURROGATE = (
    "Each retraining is played by a surrogate: a logistic regression on frozen embeddings, fitted to the rows that a "
    "retraining would have had. It ranks policies; a fine-tuned model's accuracies are others."
)
RETRAININGS = "retrainings"
LAST = 5
"""Windows at the end of the log whose accuracy is given beside the whole log's."""


@dataclass(frozen=True)
class Outcome:
    """What a policy came to. Accuracies are of the labelled rows: all of them, those of the last windows, those of each
    window of the spec (None where no row has a label). `retrained` are the rows after which it retrained.

    `cost` is in the backtest's unit; `share` is its part of what retraining after every window costs.
    """

    policy: str
    window: int
    accuracy: float
    last: float | None
    retrained: tuple[int, ...]
    cost: float
    share: float
    over_time: tuple[float | None, ...]


@dataclass(frozen=True)
class Backtest:
    """`price` is of one retraining, in `unit`: device-hours as the journal has them, else retrainings.

    `label_delay` counts windows of `window` rows; `labels` the rows of the log whose label is known.
    """

    model: str
    version: int
    rows: int
    labels: int
    window: int
    label_delay: int
    price: float
    unit: str
    outcomes: tuple[Outcome, ...]
    note: str = SURROGATE


def run(spec: Spec, place: Place, given: Sequence[Policy], label_delay: int, embed: Embed = embeddings) -> Backtest:
    """Replay the model's log; a retraining costs what the journal's last one took.

    Raises NotFoundError, DataError, and UserError for a task whose answer is not one label.
    """
    tasks.require_labels(spec.task, "a backtest")
    replay, version = gather(spec, place.storage, place.registry, embed)
    retrains = Journal(place.storage).entries(spec.name, journal.RETRAIN)
    price = budget.cost(retrains, journal.utc_now(), spec.scaling.most_workers).price
    return compare(replay, given, spec, version=version.version, label_delay=label_delay, price=price)


def compare(
    replay: Replay, given: Sequence[Policy], spec: Spec, *, version: int, label_delay: int, price: float | None
) -> Backtest:
    """Play every policy; one of them is ALWAYS. `price` of a retraining in device-hours, None when not known.

    Raises DataError where the log has not two windows of every policy.
    """
    widest = max(one.monitoring.window for one in given)
    if len(replay) < 2 * widest:
        what = f"{len(replay)} rows are in the log, two windows of {widest} are needed"
        raise DataError(what, where=spec.name, mend="wait for more answers, or --set monitoring.window=ROWS")
    delay = label_delay * spec.monitoring.window
    played = []
    for one in given:
        outcome = _played(replay, one, spec, delay, price)
        say(f"backtest: {one.name}: accuracy {outcome.accuracy:.3f}, {len(outcome.retrained)} retrainings")
        played.append(outcome)
    whole = next(outcome.cost for outcome in played if outcome.policy == ALWAYS)
    outcomes = tuple(replace(one, share=one.cost / whole if whole else 0.0) for one in played)
    unit = RETRAININGS if price is None else "device-hours"
    labels, window = int(replay.labelled.sum()), spec.monitoring.window
    return Backtest(
        spec.name, version, len(replay), labels, window, label_delay, 1.0 if price is None else price, unit, outcomes
    )


@dataclass
class _Play:
    """One policy under way: the surrogate that serves and what it has led to. `used`: rows whose labels it had."""

    replay: Replay
    policy: Policy
    spec: Spec
    price: float | None
    used: int = 0
    since: int = 0
    number: int = 0
    history: tuple[Decision, ...] = ()
    retrained: tuple[int, ...] = ()

    def wants(self, start: int, stop: int, known: int) -> bool:
        """Whether to retrain after the window of rows `start` to `stop`, with `known` rows' labels in."""
        self.number += 1
        every = self.policy.every
        if every is not None:
            return bool(every) and (stop // self.policy.monitoring.window) % every == 0 and self._waiting(known) > 0
        decision = self._decision(start, stop, known)
        self.history = (*self.history, decision)
        return decision.action == RETRAIN

    def retrain(self, stop: int, known: int) -> None:
        self.used, self.since, self.number, self.retrained = known, stop, 0, (*self.retrained, stop)

    def _waiting(self, known: int) -> int:
        return int(self.replay.labelled[self.used : known].sum())

    def _decision(self, start: int, stop: int, known: int) -> Decision:
        now, spec = self.replay.at[stop - 1], self.policy.monitoring
        began = self.replay.at[self.since - 1] if self.retrained else self.replay.created
        return policy_.decide(
            self._result(start, stop, known),
            self.history,
            now,
            spec,
            labels_waiting=self._waiting(known),
            champion_age=now - began,
            running=False,
            cost=self._cost(now - MONTH),
            regression=None,
        )

    def _cost(self, since: datetime) -> Cost:
        if self.price is None:
            return Cost(None, 0.0)
        return Cost(self.price, self.price * sum(self.replay.at[row - 1] > since for row in self.retrained))

    def _result(self, start: int, stop: int, known: int) -> DriftResult:
        replay, level = self.replay, self.policy.monitoring.level
        head, columns = replay.head(self.used), replay.drift(self.used, start, stop, level)
        measured = _measured(replay.labelled, self.since, start, stop, known)
        right = head.label[measured] == replay.true[measured]
        return DriftResult(
            model=self.spec.name,
            version=len(self.retrained) + 1,
            number=self.number,
            start=replay.at[start],
            end=replay.at[stop - 1],
            last="",
            rows=stop - start,
            columns=columns,
            drifted=any(column.drifted for column in columns),
            accuracy=float(right.mean()) if len(right) else None,
            labelled=len(right),
            reference_accuracy=head.reference_accuracy,
            estimated=replay.estimated(self.used, start, stop, level),
            report="",
            page="",
        )


def _played(replay: Replay, one: Policy, spec: Spec, delay: int, price: float | None) -> Outcome:
    play, size, rows = _Play(replay, one, spec, price), one.monitoring.window, len(replay)
    right = np.zeros(rows, np.bool_)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        right[start:stop] = replay.head(play.used).label[start:stop] == replay.true[start:stop]
        known = max(0, stop - delay)
        if stop < rows and play.wants(start, stop, known):
            play.retrain(stop, known)
    parts = [_accuracy(right, replay.labelled, at, at + spec.monitoring.window) for at in _starts(rows, spec)]
    cost = len(play.retrained) * (1.0 if price is None else price)
    return Outcome(
        policy=one.name,
        window=size,
        accuracy=float(right[replay.labelled].mean()),
        last=_accuracy(right, replay.labelled, max(0, rows - LAST * spec.monitoring.window), rows),
        retrained=play.retrained,
        cost=cost,
        share=0.0,
        over_time=tuple(parts),
    )


def _starts(rows: int, spec: Spec) -> range:
    return range(0, rows, spec.monitoring.window)


def _accuracy(right: NDArray[np.bool_], labelled: NDArray[np.bool_], start: int, stop: int) -> float | None:
    part = right[start:stop][labelled[start:stop]]
    return float(part.mean()) if len(part) else None


def _measured(labelled: NDArray[np.bool_], since: int, start: int, stop: int, known: int) -> NDArray[np.int64]:
    """Rows that say how accurate the surrogate is, as `Window.measured` has them: the window's own with a label or, of
    too few, the last with one since it serves, as many as a window has."""
    rows = since + np.flatnonzero(labelled[since:known])
    own = rows[(rows >= start) & (rows < stop)]
    return own if len(own) >= ENOUGH_LABELS else rows[-(stop - start) :]
