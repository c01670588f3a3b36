from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ClusterError
from cluster.store.lease import Lease
from cluster.store.storage import Storage
from jobs.spec import Spec
from monitoring import hold
from monitoring.journal import BEGUN, DONE, FAILED, Journal
from monitoring.watch import Watch, drain, resume, run, step
from monitoring.windows import labelled

from .fakes import BEGAN, MODEL, JobApi, Registry, drifted, log, publish, result, sample

SIZE = 10
SPEC = Spec.model_validate(
    {
        "name": MODEL,
        "base_model": "anything",
        "data": {"source": "anything.csv"},
        "monitoring": {"window": SIZE, "min_labels": 15, "consecutive": 2, "check_seconds": 0.01},
    }
)
RETRAIN_ID = "moods-retrain-1-2"


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches a kill -9."""


@dataclass
class World:
    """Everything around the watch, and a switch that kills it at the n-th thing it does."""

    storage: Storage
    registry: Registry
    jobs: JobApi = field(default_factory=JobApi)
    moved: bool = True
    kill_at: int | None = None
    acts: int = 0
    finished: list[str] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    ticks: Any = field(default_factory=count)

    def clock(self) -> datetime:
        return BEGAN + timedelta(days=1, seconds=next(self.ticks))

    def act(self, does: Callable[..., Any]) -> Callable[..., Any]:
        """`does`, killed just before or just after it when its turn has come."""

        def acting(*args: Any, **named: Any) -> Any:
            self._tick()
            answer = does(*args, **named)
            self._tick()
            return answer

        return acting

    def _tick(self) -> None:
        self.acts += 1
        if self.acts == self.kill_at:
            raise Killed

    def finish(self, submission_id: str) -> None:
        self.finished.append(submission_id)

    def settle(self, version: int) -> None:
        """As the real one: the same rows again are the same act."""
        self.settled.append(version)
        for state in (BEGUN, DONE):
            Journal(self.storage, self.act(self.clock)).write(
                MODEL, "promotion", state, f"{version}-settled", {"version": version}
            )

    def detect(self, window, reference, vocabulary, spec, storage):
        assert len(reference) == 20
        assert vocabulary
        kind = drifted if self.moved else result
        facts = {"version": window.version, "number": window.number, "start": window.start, "end": window.end}
        return kind(**facts, last=window.rows["prediction_id"].iloc[-1], rows=len(window.rows))

    def answer(self, folder: Path, inputs: Sequence[str]) -> list[str]:
        """The version before the champion, which is always right here."""
        rows = labelled(self.storage, MODEL, 2).set_index("input")["true"]
        return [rows[text] for text in inputs]

    def watch(self) -> Watch:
        """A watch as a new process makes it."""
        return Watch(
            spec=SPEC,
            storage=self.storage,
            registry=self.registry,
            submit=self.act(self.jobs.submit),
            job_status=self.act(self.jobs.status),
            finish=self.act(self.finish),
            settle=self.act(self.settle),
            roll_back=self.act(lambda version, _: self.registry.promote(version)),
            clock=self.act(self.clock),
            detect=self.act(self.detect),
            answer=self.answer,
        )

    def states(self, kind: str) -> list[tuple[str, str]]:
        return [(entry.key, entry.state) for entry in Journal(self.storage).entries(MODEL, kind)]


@pytest.fixture
def world(storage, tmp_path):
    rng = np.random.default_rng(0)
    log(storage, sample(25, rng), labelled=20)
    return World(storage, publish(tmp_path / "model", sample(20, rng)))


def test_a_quiet_window_is_kept_and_in_the_journal(world):
    world.moved = False
    decision = step(world.watch())
    assert (decision.action, decision.key) == ("keep", "1-1")
    assert world.states("window") == [("1-1", BEGUN), ("1-1", DONE)]
    assert world.states("decision") == [("1-1", DONE)]
    assert world.jobs.created == []


def test_windows_are_judged_until_none_is_complete(world):
    made = world.watch()
    assert [decision.action for decision in drain(made)] == ["keep", "retrain"]
    assert step(made) is None
    assert drain(world.watch()) == []
    assert world.registry.downloads == 0  # a drift is seen without the weights


def test_drift_in_a_row_starts_one_retraining(world):
    drain(world.watch())
    assert world.jobs.created == [RETRAIN_ID]
    assert world.states("retrain") == [("1-2", BEGUN)]


def test_an_alarm_waits_for_labels(world):
    patient = SPEC.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"min_labels": 21})})
    decisions = drain(replace(world.watch(), spec=patient))
    assert [d.action for d in decisions] == ["keep", "wait"]
    assert "20 of 21 labels needed" in decisions[1].reasons
    assert world.jobs.created == []


@pytest.mark.parametrize(("status", "state"), [("SUCCEEDED", DONE), ("FAILED", FAILED), ("STOPPED", FAILED)])
def test_a_retraining_that_ended_is_noted_once(world, status, state):
    drain(world.watch())
    world.jobs.jobs[RETRAIN_ID] = status
    for _ in range(2):
        resume(world.watch())
    assert world.states("retrain") == [("1-2", BEGUN), ("1-2", state)]


def test_a_retraining_whose_challenger_was_refused_has_ended_well(world):
    drain(world.watch())
    Journal(world.storage, world.clock).write(MODEL, "verdict", DONE, "2", {"promote": False})
    world.jobs.jobs[RETRAIN_ID] = "FAILED"
    resume(world.watch())
    assert world.states("retrain")[-1] == ("1-2", DONE)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_retraining_that_runs_is_left_alone(world, status):
    drain(world.watch())
    world.jobs.jobs[RETRAIN_ID] = status
    log(world.storage, sample(SIZE, np.random.default_rng(1)), start=25, labelled=SIZE)
    (decision,) = drain(world.watch())
    assert decision.action == "wait"
    assert "a retraining is running" in decision.reasons
    assert world.jobs.created == [RETRAIN_ID]


def test_labels_that_a_retraining_has_used_do_not_count_again(world):
    drain(world.watch())
    world.jobs.jobs[RETRAIN_ID] = "SUCCEEDED"
    log(world.storage, sample(SIZE, np.random.default_rng(1)), start=25)
    (decision,) = drain(world.watch())
    assert decision.labels_waiting == 0


def test_the_windows_of_a_new_champion_begin_anew(world):
    drain(world.watch())
    world.registry.number = 2
    log(world.storage, sample(SIZE, np.random.default_rng(1)), version=2)
    (decision,) = drain(world.watch())
    assert (decision.key, decision.in_a_row) == ("2-1", 1)


def test_a_window_waits_until_no_spool_can_hold_rows_of_it(world):
    last = BEGAN + timedelta(seconds=30 * (SIZE - 1))
    early = replace(world.watch(), clock=lambda: last + timedelta(seconds=3))
    assert step(early) is None
    assert step(replace(early, clock=lambda: last + timedelta(seconds=5))) is not None


ACTS = 32
"""Of one whole pass: the clock (which every journal row asks just before it is written), the job API, the detector."""


def test_a_whole_pass_is_as_many_acts_as_it_is_killed_at(world):
    drain(world.watch())
    assert world.acts == ACTS


@pytest.mark.long
@pytest.mark.parametrize("kill_at", range(1, ACTS + 1))
def test_killed_anywhere_it_goes_on_to_exactly_one_retraining(world, kill_at):
    world.kill_at = kill_at
    with pytest.raises(Killed):
        drain(world.watch())
    world.kill_at = None
    drain(world.watch())
    drain(world.watch())
    assert world.jobs.created == [RETRAIN_ID]
    assert world.states("window") == [("1-1", BEGUN), ("1-1", DONE), ("1-2", BEGUN), ("1-2", DONE)]
    assert world.states("decision") == [("1-1", DONE), ("1-2", DONE)]
    world.jobs.jobs[RETRAIN_ID] = "SUCCEEDED"
    drain(world.watch())
    assert world.states("retrain") == [("1-2", BEGUN), ("1-2", DONE)]


def test_the_loop_tells_every_decision_and_ends_when_told(world):
    heard, ended = [], threading.Event()

    def decided(decision):
        heard.append(decision.action)
        if len(heard) == 2:
            ended.set()

    run(world.watch(), decided, ended)
    assert heard == ["keep", "retrain"]


def test_while_it_is_paused_it_looks_and_does_nothing(world):
    held = hold.pause(Journal(world.storage, world.clock), MODEL, "a holiday", by="ann@desk")
    assert hold.pause(Journal(world.storage, world.clock), MODEL, "another") == held
    decisions = drain(world.watch())
    assert [d.action for d in decisions] == ["keep", "wait"]
    assert decisions[1].reasons[-1].endswith("UTC by ann@desk: a holiday")
    assert world.jobs.created == []
    assert world.states("window")[-1] == ("1-2", DONE)
    hold.resume(Journal(world.storage, world.clock), MODEL)
    assert hold.resume(Journal(world.storage, world.clock), MODEL) is None
    log(world.storage, sample(SIZE, np.random.default_rng(1)), start=25, labelled=SIZE)
    assert [d.action for d in drain(world.watch())] == ["retrain"]
    assert world.jobs.created == [f"{MODEL}-retrain-1-3"]


@pytest.mark.long
@pytest.mark.parametrize("kill_at", range(1, ACTS + 1))
def test_killed_anywhere_and_paused_then_it_begins_nothing_before_the_pause_ends(world, kill_at):
    world.kill_at = kill_at
    with pytest.raises(Killed):
        drain(world.watch())
    world.kill_at, begun = None, len(world.states("retrain"))
    jobs = list(world.jobs.created)
    hold.pause(Journal(world.storage, world.clock), MODEL)
    drain(world.watch())
    assert len(world.states("retrain")) == begun
    assert world.jobs.created == (jobs or [RETRAIN_ID] * begun)
    hold.resume(Journal(world.storage, world.clock), MODEL)
    drain(world.watch())
    assert len(world.jobs.created) <= 1


@pytest.fixture
def worse(world, storage):
    """Version 2 has followed version 1 and is wrong on half of 40 labelled rows."""
    rows = sample(40, np.random.default_rng(3))
    rows["input"] = [f"text {i}" for i in range(len(rows))]
    rows["true"] = np.where(np.arange(40) % 2, rows["label"], np.where(rows["label"] == "pos", "neg", "pos"))
    log(storage, rows, start=100, version=2, labelled=40)
    world.registry.promote(2)
    world.moved = False
    return world


def test_a_champion_that_labels_show_to_be_worse_is_rolled_back(worse):
    decision = step(worse.watch())
    assert (decision.action, decision.version, decision.regression.p_value) == ("roll back", 2, 0.5**20)
    assert worse.registry.number == 1
    assert [d.action for d in drain(worse.watch())] == ["keep", "keep"]  # nobody goes back to version 2
    assert worse.registry.number == 1


def test_a_paused_champion_is_not_rolled_back(worse):
    hold.pause(Journal(worse.storage, worse.clock), MODEL)
    decision = step(worse.watch())
    assert (decision.action, worse.registry.number) == ("wait", 2)
    assert decision.regression.worse
    assert any(reason.startswith("paused since") for reason in decision.reasons)


def test_what_a_pause_kept_from_going_back_goes_back_when_it_ends(worse):
    paused = Journal(worse.storage, worse.clock)
    hold.pause(paused, MODEL)
    step(worse.watch())
    log(worse.storage, sample(2 * SIZE, np.random.default_rng(4)), start=200, version=2)
    assert [d.regression for d in drain(worse.watch())][-1] is None  # no new labels: nothing to compare
    hold.resume(paused, MODEL)
    resume(worse.watch())
    assert worse.registry.number == 1
    paused.write(MODEL, "rollback", DONE, "2-1", {"version": 1})
    worse.registry.promote(2)  # a person's word, after that
    resume(worse.watch())
    assert worse.registry.number == 2


@pytest.fixture
def waiting(world):
    """Version 2 has passed while somebody had paused the model, and the pause is over."""
    paused = Journal(world.storage, world.clock)
    hold.pause(paused, MODEL)
    paused.write(MODEL, "verdict", DONE, "2", {"promote": True, "reasons": ["better"]})
    paused.write(MODEL, "awaits", DONE, "2", {"version": 2, "why": "a holiday"})
    world.moved = False
    resume(world.watch())
    assert world.settled == []
    hold.resume(paused, MODEL)
    world.acts = 0
    return world


def test_what_waited_for_the_end_of_a_pause_is_settled_once(waiting):
    for _ in range(2):
        resume(waiting.watch())
    assert waiting.settled == [2]


def test_what_waits_for_a_person_is_left_to_them(waiting):
    asked = SPEC.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"approval": True})})
    drain(replace(waiting.watch(), spec=asked))
    assert waiting.settled == []


@pytest.mark.parametrize("kill_at", range(1, 7))
def test_killed_anywhere_what_waited_is_promoted_once(waiting, kill_at):
    waiting.kill_at = kill_at
    with pytest.raises(Killed):
        resume(waiting.watch())
    waiting.kill_at = None
    for _ in range(2):
        resume(waiting.watch())
    assert waiting.states("promotion") == [("2-settled", BEGUN), ("2-settled", DONE)]


def test_a_row_is_answered_once_by_the_version_before(worse):
    asked = []
    watch = replace(worse.watch(), answer=lambda _, inputs: asked.extend(inputs) or ["pos"] * len(inputs))
    before, rows = worse.registry.find(MODEL, "previous"), labelled(worse.storage, MODEL, 2)
    assert watch.answers(before, rows.head(30)) == ["pos"] * 30
    assert watch.answers(before, rows) == ["pos"] * 40
    assert asked == list(rows["input"])


def test_where_the_spec_says_so_people_roll_back_themselves(worse):
    by_hand = SPEC.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"roll_back": False})})
    decision = step(replace(worse.watch(), spec=by_hand))
    assert (decision.action, decision.regression, worse.registry.number) == ("keep", None, 2)


@pytest.mark.long
@pytest.mark.parametrize("kill_at", range(1, 12))
def test_killed_anywhere_it_goes_back_once(worse, kill_at):
    worse.kill_at = kill_at
    with suppress(Killed):
        step(worse.watch())
    worse.kill_at = None
    drain(worse.watch())
    assert (worse.registry.number, worse.registry.before) == (1, 2)
    decided = Journal(worse.storage).entries(MODEL, "decision")
    assert [e.body["action"] for e in decided if e.body["version"] == 2] == ["roll back"]


def test_people_hear_of_an_alarm_and_of_a_retraining_that_failed(world):
    heard = []
    watch = replace(world.watch(), send=lambda message: heard.append(message.title) is None)
    drain(watch)
    world.jobs.jobs[RETRAIN_ID] = "FAILED"
    drain(watch)
    drain(watch)
    assert heard == ["moods: retraining", "moods: the retraining failed"]


def test_a_cluster_that_does_not_answer_is_asked_again(world, capsys):
    ended, calls = threading.Event(), count()

    def submit(submission_id):
        if next(calls) == 0:
            raise ClusterError("no Ray job API answers")
        world.jobs.submit(submission_id)
        ended.set()

    run(replace(world.watch(), submit=submit), lambda _: None, ended)
    assert world.jobs.created == [RETRAIN_ID]
    assert "no Ray job API answers; looking again" in capsys.readouterr().err


def test_it_tidies_when_nothing_is_left_to_judge_and_it_leads(world):
    said, ended = [], threading.Event()

    def tidy() -> None:
        said.append("tidied")
        ended.set()

    drain(replace(world.watch(), tidy=tidy))
    assert said == ["tidied"]
    ended.clear()
    run(replace(world.watch(), tidy=tidy), lambda decision: said.append(decision.action), ended)
    assert said == ["tidied", "tidied"]

    ahead = Lease(world.storage, "watch", "another", 60)
    assert ahead.acquire()
    assert drain(replace(world.watch(), tidy=tidy, lease=replace(ahead, holder="this one"))) == []
    assert said == ["tidied", "tidied"]
