"""A canary's trial: begun when the gate lets a version pass, looked at by the watch, concluded once.

In the journal a trial is begun and ends as done (promoted or dropped) or failed (something came between). Each look
that counts is a row: whoever goes on after a crash finds the verdict to act on, and counts no look twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.store.registry import CANARY, ModelVersion
from cluster.store.storage import Storage
from jobs.spec import CanarySpec

from .journal import BEGUN, DONE, FAILED, LOOK, TRIAL, Entry, Journal, open_entries
from .judges import canary, observed
from .judges.canary import CanaryVerdict

SUPERSEDED, OVERTAKEN = "superseded by version {}", "the champion has changed since it began"


class Moves(Protocol):
    """What a trial asks of the registry."""

    def find(self, model: str, alias: str) -> ModelVersion | None: ...

    def try_out(self, model: str, version: int) -> None: ...

    def end_trial(self, model: str) -> None: ...


@dataclass(frozen=True)
class Court:
    """Where trials of a model are held. `promote` makes a version champion; the same key again is the same act."""

    model: str
    spec: CanarySpec
    storage: Storage
    registry: Moves
    journal: Journal
    promote: Callable[[int, str], object]


def begin(court: Court, version: int, champion: int) -> None:
    """Put a version on trial beside the champion, in the place of any other. Again, it changes nothing."""
    entries = court.journal.entries(court.model, TRIAL)
    if any(entry.key == str(version) and entry.state != BEGUN for entry in entries):
        return
    for entry in open_entries(entries):
        if entry.key != str(version):
            _end(court, entry, FAILED, SUPERSEDED.format(version))
    court.journal.write(court.model, TRIAL, BEGUN, str(version), {"version": version, "champion": champion})
    court.registry.try_out(court.model, version)


def running(entries: Sequence[Entry]) -> Entry | None:
    """Of a model's journal, the trial that has not ended."""
    return next(iter(open_entries([entry for entry in entries if entry.kind == TRIAL])), None)


def look(court: Court, entries: Sequence[Entry], champion: ModelVersion) -> CanaryVerdict | None:
    """Judge the trial that runs, if one does, and act. `entries` are the model's journal, `champion` is now's."""
    trial = running(entries)
    if trial is None:
        return None
    version = int(trial.body["version"])
    verdict = _last(entries, version)
    if verdict is None or verdict.action == canary.WAIT:
        if champion.version != trial.body["champion"]:
            court.registry.end_trial(court.model)
            _end(court, trial, FAILED, OVERTAKEN)
            return None
        verdict = _judged(court, trial, verdict)
    if verdict.action != canary.WAIT:
        _conclude(court, trial, verdict)
    return verdict


def _judged(court: Court, trial: Entry, last: CanaryVerdict | None) -> CanaryVerdict:
    version, champion = int(trial.body["version"]), int(trial.body["champion"])
    at = court.registry.find(court.model, CANARY)
    if at is None or at.version != version:  # killed between the journal's row and the alias
        court.registry.try_out(court.model, version)
    rows = observed.since(court.storage, court.model, champion, version, trial.at)
    verdict = canary.judge(rows, version, last, court.spec)
    if _counts(verdict, last):
        court.journal.write(court.model, LOOK, DONE, _key(version, verdict), verdict.to_dict())
    return verdict


def _conclude(court: Court, trial: Entry, verdict: CanaryVerdict) -> None:
    version = int(trial.body["version"])
    if verdict.action == canary.PROMOTE:
        court.promote(version, f"{version}-trial")
    court.registry.end_trial(court.model)
    court.journal.write(court.model, TRIAL, DONE, trial.key, {**trial.body, **_said(verdict)})


def _said(verdict: CanaryVerdict) -> dict[str, Any]:
    return {"action": verdict.action, "reasons": list(verdict.reasons)}


def _end(court: Court, trial: Entry, state: str, reason: str) -> None:
    court.journal.write(court.model, TRIAL, state, trial.key, {**trial.body, "action": "ended", "reasons": [reason]})


def _counts(verdict: CanaryVerdict, last: CanaryVerdict | None) -> bool:
    """Whether a verdict is of a look of its own, or ends the trial."""
    looks = [0 if made is None or made.trial is None else made.trial.look for made in (verdict, last)]
    return looks[0] > looks[1] or verdict.action != canary.WAIT


def _key(version: int, verdict: CanaryVerdict) -> str:
    return f"{version}-{verdict.trial.look if verdict.trial is not None else 0}"


def _last(entries: Sequence[Entry], version: int) -> CanaryVerdict | None:
    made = [e for e in entries if e.kind == LOOK and e.key.startswith(f"{version}-")]
    return CanaryVerdict.from_dict(made[-1].body) if made else None
