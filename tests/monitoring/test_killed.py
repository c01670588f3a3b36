"""The loop under `kill -9` at every transition: before and after each row, alias and job that it writes.

A life is a real process over real Delta tables and a real MLflow registry: the watch judges two drifted windows and
starts a retraining, whose job registers a challenger that the gate promotes, and the watch notes its end. It is killed
at the n-th transition; the next life, undisturbed, must end where one without a kill does. Training and the drift test
are played, the job API is a folder: a job of an id is created once, and one whose process died has failed, as with Ray.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.settings import Settings
from cluster.store.registry import CANARY, CHALLENGER, CHAMPION, PREVIOUS
from cluster.store.storage import Storage
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring.drift.detect import DriftResult
from monitoring.journal import Journal
from monitoring.windows import Window
from serve.log.predictions import Kind, Observation, new_id, observations

from .fakes import MODEL, drifted, log, publish, sample

SPEC = Spec.model_validate(
    {
        "name": MODEL,
        "base_model": "anything",
        "data": {"source": "anything.csv"},
        "monitoring": {"window": 10, "min_labels": 15, "consecutive": 2},
    }
)
TRIED = SPEC.with_values({"serving.canary.share": 0.5, "serving.canary.rows": 60})
"""With a canary between the gate and the champion's place."""
HELD = SPEC.with_values({"monitoring.check_seconds": 1.0})
"""Whose model somebody pauses before the job has made its challenger, and resumes after."""
JOB = "moods-retrain-1-2"
# Forked from a server that has imported all this and done nothing: a life costs no imports, and no thread is lost.
LIVES = multiprocessing.get_context("forkserver")
LIVES.set_forkserver_preload(["tests.monitoring.test_killed", "monitoring.watch", "monitoring.promotion", "mlflow"])

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Transitions:
    """Counts what is written, and kills this very process at one of them."""

    kill_at: int | None
    done: list[str] = field(default_factory=list)

    def around(self, owner: Any, name: str) -> None:
        """Count just before and just after each call of a function."""
        acts = getattr(owner, name)

        def acting(*args: Any, **named: Any) -> Any:
            self._pass(f"before {name}")
            answer = acts(*args, **named)
            self._pass(f"after {name}")
            return answer

        setattr(owner, name, acting)

    def _pass(self, what: str) -> None:
        self.done.append(what)
        if len(self.done) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Jobs:
    """A folder of jobs: `<id>.created`, `.running`, `.ended`."""

    folder: Path

    def submit(self, job: str) -> None:
        (self.folder / f"{job}.created").touch()
        with (self.folder / "submissions").open("a") as lines:
            lines.write(job + "\n")

    def status(self, job: str) -> str | None:
        for word, status in (("ended", "SUCCEEDED"), ("running", "FAILED"), ("created", "PENDING")):
            if (self.folder / f"{job}.{word}").exists():
                return status
        return None

    def pending(self) -> list[str]:
        created = sorted(path.stem for path in self.folder.glob("*.created"))
        return [job for job in created if self.status(job) == "PENDING"]


def life(root: Path, spec: Spec, kill_at: int | None) -> None:
    """What the watch and the cluster do, from wherever they are."""
    from mlflow import MlflowClient

    from cluster.store.tables import Table
    from monitoring import hold, promotion
    from monitoring.judges.gate import Verdict
    from monitoring.watch import Watch, drain

    place, jobs = Place.from_settings(Settings(storage=str(root / "store"))), Jobs(root / "jobs")
    promotion._judged = lambda *_: Verdict(promote=True, reasons=("better",), numbers={})
    transitions = Transitions(kill_at)
    transitions.around(Table, "append")
    transitions.around(Jobs, "submit")
    for name in ("set_registered_model_alias", "delete_registered_model_alias", "create_model_version"):
        transitions.around(MlflowClient, name)

    def detect(window: Window, *_: Any) -> DriftResult:
        facts = {"version": window.version, "number": window.number, "start": window.start, "end": window.end}
        return drifted(**facts, last=window.rows["prediction_id"].iloc[-1], rows=len(window.rows))

    watch = Watch(
        spec=spec,
        storage=place.storage,
        registry=place.registry,
        submit=jobs.submit,
        job_status=jobs.status,
        finish=lambda job: promotion.finish(spec, place, job),
        settle=lambda version: promotion.settle(spec, place, place.registry.get(MODEL, version)),
        roll_back=lambda version, key: promotion.roll_back(MODEL, place, version, key),
        detect=detect,
        court=promotion.court(spec, place),
    )
    drain(watch)
    if spec == HELD and not watch.journal.entries(MODEL, "pause"):
        hold.pause(watch.journal, MODEL, by="ann@desk")
    for job in jobs.pending():
        (jobs.folder / f"{job}.running").touch()
        champion = place.registry.champion(MODEL)
        made = place.registry.register(MODEL, champion.run, str(root / "challenger"), {})
        promotion.settle(spec, place, made)
        (jobs.folder / f"{job}.ended").touch()
    drain(watch)
    if spec == HELD:
        hold.resume(watch.journal, MODEL, by="ann@desk")
        drain(watch)
    (root / "transitions.json").write_text(json.dumps(transitions.done))


def lived(root: Path, spec: Spec, kill_at: int | None = None) -> int | None:
    process = LIVES.Process(target=life, args=(root, spec, kill_at))
    process.start()
    process.join(120)
    return process.exitcode


def born(root: Path) -> None:
    """A champion, two windows of its answers with labels, and the files of the version that a retraining will make."""
    from cluster.store.tracking import Tracker

    settings = Settings(storage=str(root / "store"))
    place, rng = Place.from_settings(settings), np.random.default_rng(0)
    for name, job in (("champion", None), ("challenger", JOB)):
        publish(root / name, sample(20, rng))
        (root / name / "manifest.json").write_text(json.dumps({"job": job, "labels": ["neg", "pos"]}))
    with Tracker(settings, MODEL).run("train", {}, {}) as run:
        place.registry.register(MODEL, run.id, str(root / "champion"), {})
    place.registry.promote(MODEL, 1)
    log(place.storage, sample(20, rng), labelled=20)
    tried = datetime.now(UTC) + timedelta(days=1)  # whenever a trial begins, it has been seen since
    rows = [seen(version, number, tried) for version in (1, 2) for number in range(80)]
    observations(place.storage).append([row.to_row() for row in rows])
    (root / "jobs").mkdir()


def seen(version: int, number: int, at: datetime) -> Observation:
    """An answer of a version during a trial, as quick and as right as the other's."""
    facts = {"kind": Kind.answer, "key": f"{version}-{number}", "label": "pos", "fault": None}
    batch = {"batch": f"{version}-{number}", "batch_rows": 1, "seconds": 0.01 + number / 10_000}
    return Observation(new_id(MODEL, version), at, MODEL, version, **facts, **batch)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """Where every life begins. MLflow keeps absolute paths, so that all of them read the same artifacts."""
    root = tmp_path_factory.mktemp("lives") / "start"
    root.mkdir()
    process = LIVES.Process(target=born, args=(root,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return root


@pytest.fixture(scope="module")
def undisturbed(start) -> list[str]:
    """The transitions of a life that nobody kills."""
    return passed(start, SPEC, WHOLE)


def passed(start: Path, spec: Spec, whole: dict[str, Any]) -> list[str]:
    root = copy(start, "whole")
    assert lived(root, spec) == 0
    assert told(root) == whole
    transitions: list[str] = json.loads((root / "transitions.json").read_text())
    shutil.rmtree(root)
    return transitions


WHOLE = {
    "jobs": [JOB],
    "champion": 2,
    "previous": 1,
    "challenger": None,
    "canary": None,
    "versions": 2,
    "window": ["1-1 begun", "1-1 done", "1-2 begun", "1-2 done"],
    "decision": ["1-1 done", "1-2 done"],
    "retrain": ["1-2 begun", "1-2 done"],
    "evaluated": ["2 done"],
    "verdict": ["2 done"],
    "trial": [],
    "look": [],
    "promotion": ["2-settled begun", "2-settled done"],
    "rollback": [],
    "awaits": [],
    "pause": [],
}
WHOLE_TRIED = WHOLE | {
    "trial": ["2 begun", "2 done"],
    "look": ["2-1 done"],
    "promotion": ["2-trial begun", "2-trial done"],
}
WHOLE_HELD = WHOLE | {"awaits": ["2 done"], "pause": ["1 begun", "1 done"]}


def copy(start: Path, name: str) -> Path:
    return Path(shutil.copytree(start, start.parent / name))


def told(root: Path) -> dict[str, Any]:
    """All that a life left behind."""
    place = Place.from_settings(Settings(storage=str(root / "store")))
    versions = place.registry.versions(MODEL)
    at = {alias: version.version for version in versions for alias in version.aliases}
    journal = Journal(Storage(str(root / "store")))
    kinds = [kind for kind, rows in WHOLE.items() if isinstance(rows, list) and kind != "jobs"]
    rows = {kind: [f"{e.key} {e.state}" for e in journal.entries(MODEL, kind)] for kind in kinds}
    aliases = {name: at.get(name) for name in (CHAMPION, PREVIOUS, CHALLENGER, CANARY)}
    return {"jobs": Jobs(root / "jobs").pending() or jobs_of(root), "versions": len(versions)} | aliases | rows


def jobs_of(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "jobs").glob("*.created"))


def test_killed_at_any_transition_the_loop_ends_where_it_would_have(start, undisturbed):
    """Exactly one retraining, exactly one promotion; only a job that died before it had a challenger has failed."""
    assert len(undisturbed) > 30
    for kill_at, transition in enumerate(undisturbed, 1):
        found = killed(start, SPEC, kill_at)
        if found["versions"] == 1:  # the job died before it had registered anything: nothing can be promoted
            assert transition == "before create_model_version"
            assert found == WHOLE | {
                "champion": 1,
                "previous": None,
                "versions": 1,
                "retrain": ["1-2 begun", "1-2 failed"],
                "evaluated": [],
                "verdict": [],
                "promotion": [],
            }
        else:
            assert found == WHOLE, f"killed at {kill_at}, {transition}"


def test_killed_anywhere_in_a_canarys_trial_it_ends_as_it_would_have(start, undisturbed):
    """What comes before the trial is killed above."""
    tried = passed(start, TRIED, WHOLE_TRIED)
    same = next(at for at, pair in enumerate(zip(tried, undisturbed, strict=False)) if len(set(pair)) > 1)
    assert len(tried) - same > 10
    for kill_at in range(same, len(tried) + 1):
        assert killed(start, TRIED, kill_at) == WHOLE_TRIED, f"killed at {kill_at}, {tried[kill_at - 1]}"


def test_killed_anywhere_between_a_verdict_and_the_end_of_a_pause_it_is_promoted_once(start, undisturbed):
    """What comes before the verdict is killed above."""
    held = passed(start, HELD, WHOLE_HELD)
    made, other = (life.index("after create_model_version") for life in (held, undisturbed))
    pairs = enumerate(zip(held[made:], undisturbed[other:], strict=False), made)
    same = next(at for at, pair in pairs if len(set(pair)) > 1)
    assert len(held) - same > 10
    for kill_at in range(same, len(held) + 1):
        assert killed(start, HELD, kill_at) == WHOLE_HELD, f"killed at {kill_at}, {held[kill_at - 1]}"


def killed(start: Path, spec: Spec, kill_at: int) -> dict[str, Any]:
    """What is left after a life that was killed and one that was not."""
    root = copy(start, f"killed-at-{kill_at}")
    assert lived(root, spec, kill_at) == -signal.SIGKILL
    assert lived(root, spec) == 0
    found = told(root)
    shutil.rmtree(root)
    return found
