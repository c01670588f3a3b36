"""Trials over real Delta tables, with a registry in memory: begun, looked at, concluded, and killed in between."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest

from cluster.store.registry import ModelVersion
from jobs.spec import CanarySpec
from monitoring import trial
from monitoring.journal import BEGUN, DONE, FAILED, LOOK, TRIAL, Journal
from monitoring.trial import Court
from serve.log.predictions import Kind, Observation, new_id, observations

from .fakes import BEGAN, MODEL

SPEC = CanarySpec(share=0.5, rows=60)


class Killed(BaseException):
    """As in test_watch.py."""


@dataclass
class Aliases:
    """Which version has which alias; kills before and after each move when its turn has come."""

    at: dict[str, int] = field(default_factory=lambda: {"champion": 1})
    kill_at: int | None = None
    acts: int = 0

    def find(self, model: str, alias: str) -> ModelVersion | None:
        return version(self.at[alias]) if alias in self.at else None

    def try_out(self, model: str, number: int) -> None:
        self._move({**self.at, "canary": number})

    def end_trial(self, model: str) -> None:
        self._move({alias: number for alias, number in self.at.items() if alias != "canary"})

    def promote(self, number: int, key: str) -> None:
        assert key == "2-trial"
        self._move({**self.at, "champion": number})

    def _move(self, at: dict[str, int]) -> None:
        self.tick()
        self.at = at
        self.tick()

    def tick(self) -> None:
        self.acts += 1
        if self.acts == self.kill_at:
            raise Killed


def version(number: int) -> ModelVersion:
    return ModelVersion(MODEL, number, "run", "", {}, (), BEGAN.timestamp())


@pytest.fixture
def aliases() -> Aliases:
    return Aliases()


@pytest.fixture
def court(storage, aliases) -> Court:
    ticks = count()

    def clock():
        aliases.tick()
        return BEGAN + timedelta(seconds=next(ticks))

    return Court(MODEL, SPEC, storage, aliases, Journal(storage, clock), aliases.promote)


def seen(court: Court, canary_fault: str | None = None, *, rows: int = 80) -> None:
    """What both versions answered, each a batch of its own."""
    rng = np.random.default_rng(0)
    made = []
    for number, fault in ((1, None), (2, canary_fault)):
        for i in range(rows):
            at = BEGAN + timedelta(minutes=1, seconds=i)
            label = None if fault else "pos"
            facts: dict[str, Any] = {"kind": Kind.answer, "key": f"{number}-{i}", "label": label, "fault": fault}
            seconds = None if fault else float(rng.gamma(9, 0.001))
            made.append(
                Observation(
                    new_id(MODEL, number),
                    at,
                    MODEL,
                    number,
                    **facts,
                    batch=f"{number}-{i}",
                    batch_rows=1,
                    seconds=seconds,
                )
            )
    observations(court.storage).append([each.to_row() for each in made])


def states(court: Court) -> list[tuple[str, str]]:
    return [(entry.key, entry.state) for entry in court.journal.entries(MODEL, TRIAL)]


def look(court: Court, champion: int | None = None):
    now = court.registry.at["champion"] if champion is None else champion
    return trial.look(court, court.journal.entries(MODEL), version(now))


def test_without_a_trial_nothing_is_looked_at(court):
    assert look(court) is None


def test_a_trial_waits_until_there_is_enough_to_judge_by(court, aliases):
    trial.begin(court, 2, 1)
    trial.begin(court, 2, 1)
    assert aliases.at == {"champion": 1, "canary": 2}
    assert look(court).action == "wait"
    assert states(court) == [("2", BEGUN)]
    assert court.journal.entries(MODEL, LOOK) == []


def test_a_canary_as_good_is_promoted_once(court, aliases):
    trial.begin(court, 2, 1)
    seen(court)
    assert look(court).action == "promote"
    assert aliases.at == {"champion": 2}
    assert states(court) == [("2", BEGUN), ("2", DONE)]
    assert court.journal.entries(MODEL, TRIAL)[-1].body["action"] == "promote"
    assert look(court) is None


def test_a_canary_that_fails_is_dropped(court, aliases):
    trial.begin(court, 2, 1)
    seen(court, "RuntimeError: no")
    verdict = look(court)
    assert verdict.action == "drop"
    assert "batches failed" in "; ".join(verdict.reasons)
    assert aliases.at == {"champion": 1}
    assert states(court)[-1] == ("2", DONE)


def test_looks_are_counted_once(court):
    court = Court(**{**court.__dict__, "spec": SPEC.model_copy(update={"rows": 10_000})})
    trial.begin(court, 2, 1)
    seen(court)
    for _ in range(3):
        assert look(court).action == "wait"
    assert [entry.key for entry in court.journal.entries(MODEL, LOOK)] == ["2-1"]


def test_a_new_trial_takes_the_place_of_the_old_one(court, aliases):
    trial.begin(court, 2, 1)
    trial.begin(court, 3, 1)
    assert aliases.at["canary"] == 3
    assert states(court) == [("2", BEGUN), ("2", FAILED), ("3", BEGUN)]
    trial.begin(court, 2, 1)  # its job goes on after a crash: the trial is over
    assert aliases.at["canary"] == 3


def test_a_champion_that_changed_ends_the_trial(court, aliases):
    trial.begin(court, 2, 1)
    assert look(court, champion=5) is None
    assert "canary" not in aliases.at
    assert court.journal.entries(MODEL, TRIAL)[-1].body["reasons"] == [trial.OVERTAKEN]


@pytest.mark.parametrize("fault", [None, "RuntimeError: no"])
@pytest.mark.parametrize("kill_at", range(1, 14))
def test_killed_anywhere_a_trial_ends_once(court, aliases, fault, kill_at):
    seen(court, fault)
    aliases.kill_at = kill_at
    with suppress(Killed):
        trial.begin(court, 2, 1)
        look(court)
    aliases.kill_at = None
    trial.begin(court, 2, 1)
    look(court)
    look(court)
    assert aliases.at == {"champion": 1 if fault else 2}
    assert states(court) == [("2", BEGUN), ("2", DONE)]
    assert len(court.journal.entries(MODEL, LOOK)) == 1
