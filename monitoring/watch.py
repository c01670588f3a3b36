"""The watch: take the champion's next window, judge it, decide, and start a retraining when the policy says so.

Every step is in the journal before and after it is taken, and every retraining has an id made from its window. Killed
anywhere, the watch goes on where it was: no window is judged into two decisions, and a decision to retrain becomes
exactly one job (the job API refuses a second one of the same id).
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pandas as pd

from cluster.console import say
from cluster.errors import ClusterError
from cluster.store.lease import Lease
from cluster.store.registry import PREVIOUS, ModelVersion
from cluster.store.storage import Storage
from jobs.spec import Spec

from . import budget, hold, journal, notices, policy, trial
from .drift import detect as drift
from .drift.detect import DriftResult
from .journal import BEGUN, DONE, FAILED, Entry, Journal
from .judges import canary, regression
from .judges.regression import Regression
from .notices import Send
from .policy import Decision
from .trial import Court
from .windows import ENOUGH_LABELS, START, Window, labelled, labels_since, next_window


class Champions(Protocol):
    """What the watch asks of the registry."""

    def champion(self, model: str) -> ModelVersion: ...

    def find(self, model: str, alias: str) -> ModelVersion | None: ...

    def download(self, version: ModelVersion) -> Path: ...

    def read(self, version: ModelVersion, name: str) -> bytes: ...


_MOST_ROWS = 2000
"""Labelled rows, the latest, on which a champion is compared with the version before it."""

Answer = Callable[[Path, Sequence[str]], Sequence[str]]
Detect = Callable[[Window, pd.DataFrame, Sequence[str], Spec, Storage], DriftResult]


def answer(folder: Path, inputs: Sequence[str]) -> list[str]:
    """The labels that the model version in a folder gives."""
    from jobs.models.predictor import Predictor

    return [output.label for output in Predictor.load(folder)(inputs)]


@dataclass(frozen=True)
class Watch:
    """A watch and all it acts through.

    `submit` starts the retraining job of an id, and leaves a job of that id as it is. `job_status` is Ray's word for
    it (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED), None when the cluster knows no such job. `finish` settles what a
    job that ended so left undone. `settle` acts on the verdict of a version that waited. `roll_back` makes a version
    champion again; the same key again is the same act. `send` tells people. `lease` is what the one watch that leads
    holds; None where nobody else can watch. `court` is where canaries are tried. `tidy` is called when nothing is left
    to judge, and raises nothing.
    """

    spec: Spec
    storage: Storage
    registry: Champions
    submit: Callable[[str], object]
    job_status: Callable[[str], str | None]
    finish: Callable[[str], object]
    settle: Callable[[int], object]
    roll_back: Callable[[int, str], object]
    clock: Callable[[], datetime] = journal.utc_now
    detect: Detect = drift.detect
    answer: Answer = answer
    send: Send | None = None
    lease: Lease | None = None
    court: Court | None = None
    tidy: Callable[[], None] | None = None
    _answers: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.spec.name

    @property
    def journal(self) -> Journal:
        return Journal(self.storage, self.clock)

    def answers(self, version: ModelVersion, rows: pd.DataFrame) -> list[str]:
        """A version's labels for logged rows (prediction_id, input), each row answered once."""
        keys = [f"{version.version}/{row}" for row in rows["prediction_id"]]
        new = {key: given for key, given in zip(keys, rows["input"], strict=True) if key not in self._answers}
        if new:
            given = self.answer(self.registry.download(version), list(new.values()))
            self._answers.update(zip(new, given, strict=True))
        return [self._answers[key] for key in keys]


def step(watch: Watch) -> Decision | None:
    """Finish what is open, then judge one window; None when none is complete. Raises NotFoundError, ClusterError."""
    entries = resume(watch)
    if watch.court is not None and trial.running(entries) is not None and hold.paused(entries) is None:
        verdict = trial.look(watch.court, entries, watch.registry.champion(watch.model))
        if verdict is not None and verdict.action != canary.WAIT:
            say(f"watch: canary: {verdict.action}: {'; '.join(verdict.reasons)}")
        entries = watch.journal.entries(watch.model)
    champion = watch.registry.champion(watch.model)
    result = _undecided(entries, champion) or _judge(watch, entries, champion)
    if result is None:
        return None
    decision = _decide(watch, entries, champion, result)
    watch.journal.write(watch.model, journal.DECISION, DONE, decision.key, decision.to_dict())
    if decision.action == policy.RETRAIN:
        _retrain(watch, decision.key)
    elif decision.action == policy.ROLL_BACK and decision.regression is not None:
        watch.roll_back(decision.regression.previous, decision.key)
    return decision


def drain(watch: Watch) -> list[Decision]:
    """Judge every window that is complete; none while another watch leads."""
    if not _leads(watch):
        return []
    try:
        made = list(iter(lambda: step(watch), None))
        _tell(watch)
        _tidy(watch)
    finally:
        _leave(watch)
    return made


def run(watch: Watch, decided: Callable[[Decision], None], ended: threading.Event) -> None:
    """Look every `check_seconds` until `ended` is set, while this watch leads; `decided` hears of every decision."""
    led = True
    try:
        while not ended.is_set():
            leads = _leads(watch, tell=led)
            led, decision = leads, _look(watch) if leads else None
            if decision is None:
                if leads:
                    _tidy(watch)
                ended.wait(watch.spec.monitoring.check_seconds)
            else:
                decided(decision)
    finally:
        _leave(watch)


def _look(watch: Watch) -> Decision | None:
    try:
        decision = step(watch)
        _tell(watch)
    except ClusterError as error:
        # A cluster that does not answer is asked again: the journal knows what is left to do.
        say(f"watch: {error}; looking again in {watch.spec.monitoring.check_seconds:g} s")
        return None
    return decision


def _leads(watch: Watch, *, tell: bool = True) -> bool:
    if watch.lease is None or watch.lease.acquire():
        return True
    term = watch.lease.current()
    if tell and term is not None:
        say(f"watch: {term.holder} leads until {term.until:%H:%M:%S} UTC; waiting")
    return False


def _leave(watch: Watch) -> None:
    if watch.lease is not None:
        watch.lease.release()


def _tidy(watch: Watch) -> None:
    if watch.tidy is not None:
        watch.tidy()


def _tell(watch: Watch) -> None:
    if watch.send is not None:
        notices.tell(watch.journal, watch.model, watch.send, watch.clock())


def resume(watch: Watch) -> list[Entry]:
    """Note the retrainings that ended, start those that never were, promote what has waited and need not any more.

    Gives the journal as it is then.
    """
    entries = watch.journal.entries(watch.model)
    left = _retrains(journal.open_entries(entries))
    held = hold.paused(entries) is not None
    owed = [] if held else _owed(entries)
    for entry in left:
        status = watch.job_status(entry.body["submission_id"])
        if status is None:
            watch.submit(entry.body["submission_id"])
        elif status in {"SUCCEEDED", "FAILED", "STOPPED"}:
            _end(watch, entry, status)
    for key in owed:
        _retrain(watch, key)
    if held:
        return watch.journal.entries(watch.model) if left else entries
    settled = _settle_owed(watch, entries)
    _roll_back_owed(watch, entries)
    return watch.journal.entries(watch.model) if left or owed or settled else entries


def _owed(entries: Sequence[Entry]) -> list[str]:
    """The key of a retraining that was decided when the watch was killed before it began: the last decision's only."""
    begun = {entry.key for entry in _retrains(entries)}
    last = _decisions(entries)[-1:]
    return [decision.key for decision in last if decision.action == policy.RETRAIN and decision.key not in begun]


def _settle_owed(watch: Watch, entries: Sequence[Entry]) -> bool:
    """Whether a version has waited for the end of a pause, and was settled."""
    waits = hold.awaiting(entries)
    if waits is None or watch.spec.monitoring.approval:
        return False
    watch.settle(int(waits.body["version"]))
    return True


def _roll_back_owed(watch: Watch, entries: Sequence[Entry]) -> None:
    """Go back where the last comparison said so, and the watch was killed before it did or was paused."""
    gone_back = {entry.key for entry in entries if entry.kind == journal.ROLLBACK and entry.state == DONE}
    compared = [decision for decision in _decisions(entries) if decision.regression is not None][-1:]
    for decision in compared:
        found = decision.regression
        if found is None or not found.worse or decision.key in gone_back:
            continue
        if watch.registry.champion(watch.model).version == decision.version:
            watch.roll_back(found.previous, decision.key)


def _retrain(watch: Watch, key: str) -> None:
    submission_id = f"{watch.model}-retrain-{key}"
    body = {"submission_id": submission_id, "workers": watch.spec.scaling.most_workers}
    watch.journal.write(watch.model, journal.RETRAIN, BEGUN, key, body)
    watch.submit(submission_id)


def _end(watch: Watch, begun: Entry, status: str) -> None:
    if status == "FAILED":
        # Killed between its challenger and the champion it was to be? (One that people stopped is to promote nothing.)
        watch.finish(begun.body["submission_id"])
    # A job whose challenger was refused ends as FAILED, yet it has used its labels and reached a verdict.
    verdicts = watch.journal.entries(watch.model, journal.VERDICT)
    judged = any(entry.at >= begun.at for entry in verdicts)
    state = DONE if status == "SUCCEEDED" or (status == "FAILED" and judged) else FAILED
    watch.journal.write(watch.model, journal.RETRAIN, state, begun.key, {**begun.body, "status": status})


def _judge(watch: Watch, entries: Sequence[Entry], champion: ModelVersion) -> DriftResult | None:
    """The next window of the champion, from begun to done in the journal."""
    # A spool is moved to the log every `flush_seconds`: what is older than two of them is all there.
    settled = watch.clock() - timedelta(seconds=2 * watch.spec.serving.flush_seconds)
    after = max((result.position for result in _results(entries, champion)), default=START)
    spec = watch.spec.monitoring
    window = next_window(watch.storage, watch.model, champion.version, spec.window, after, before=settled)
    if window is None:
        return None
    watch.journal.write(watch.model, journal.WINDOW, BEGUN, window.key, {"rows": len(window.rows)})
    reference = pd.read_parquet(io.BytesIO(watch.registry.read(champion, "reference.parquet")))
    vocabulary = json.loads(watch.registry.read(champion, "vocabulary.json"))
    result = watch.detect(window, reference, vocabulary, watch.spec, watch.storage)
    watch.journal.write(watch.model, journal.WINDOW, DONE, window.key, result.to_dict())
    return result


def _decide(watch: Watch, entries: Sequence[Entry], champion: ModelVersion, result: DriftResult) -> Decision:
    now = watch.clock()
    retrains, held = _retrains(entries), hold.paused(entries)
    ended = {entry.key for entry in retrains if entry.state == DONE}
    used = max((entry.at for entry in retrains if entry.state == BEGUN and entry.key in ended), default=None)
    return policy.decide(
        result,
        _decisions(entries),
        now,
        watch.spec.monitoring,
        labels_waiting=labels_since(watch.storage, watch.model, used),
        champion_age=now - datetime.fromtimestamp(champion.created, UTC),
        running=bool(journal.open_entries(retrains)) or trial.running(entries) is not None,
        cost=budget.cost(retrains, now, watch.spec.scaling.most_workers),
        regression=_regression(watch, entries, champion),
        paused=hold.said(held) if held is not None else "",
    )


def _regression(watch: Watch, entries: Sequence[Entry], champion: ModelVersion) -> Regression | None:
    """The champion beside the version before it; None without new labels, or where there is none that it followed."""
    before = watch.registry.find(watch.model, PREVIOUS)
    # A version that was rolled back is the previous one too: nobody goes back to it.
    if not watch.spec.monitoring.roll_back or before is None or before.version >= champion.version:
        return None
    rows = labelled(watch.storage, watch.model, champion.version, _MOST_ROWS)
    looks = [d.regression for d in _decisions(entries) if d.version == champion.version and d.regression is not None]
    last = looks[-1] if looks else None
    if len(rows) < ENOUGH_LABELS or (last is not None and last.rows == len(rows)):
        return None
    rows = rows.rename(columns={"predicted": "champion"})
    rows["previous"] = watch.answers(before, rows)
    rate, loss = watch.spec.monitoring.false_alarm_rate, watch.spec.evaluation.max_loss_on_old
    return regression.judge(rows, before.version, last, false_alarm_rate=rate, max_loss=loss)


def _undecided(entries: Sequence[Entry], champion: ModelVersion) -> DriftResult | None:
    """A window of the champion that was judged when the watch was killed before it decided."""
    decided = {entry.key for entry in entries if entry.kind == journal.DECISION}
    return next((result for result in _results(entries, champion) if result.key not in decided), None)


def _results(entries: Sequence[Entry], champion: ModelVersion) -> list[DriftResult]:
    done = (e.body for e in entries if e.kind == journal.WINDOW and e.state == DONE)
    return [DriftResult.from_dict(body) for body in done if body["version"] == champion.version]


def _decisions(entries: Sequence[Entry]) -> list[Decision]:
    return [Decision.from_dict(entry.body) for entry in entries if entry.kind == journal.DECISION]


def _retrains(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.kind == journal.RETRAIN]
