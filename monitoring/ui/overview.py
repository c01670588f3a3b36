"""What the page shows, gathered from journal, registry and log. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.registry import CHALLENGER, ModelVersion
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import controller, journal
from monitoring.journal import DONE, Entry, Journal

_WINDOWS = 60  # the latest, each of which asks the log for its labels
_DECISIONS = 60


@dataclass(frozen=True)
class Window:
    """A window of production. `accuracy` is by the labels there are now, None without any."""

    key: str
    number: int
    version: int
    start: datetime
    end: datetime
    rows: int
    moved: tuple[str, ...]
    accuracy: float | None
    labelled: int
    estimated: float
    reference: float
    page: str


@dataclass(frozen=True)
class Decided:
    """A decision; `evidence` is all that it was made from."""

    key: str
    at: datetime
    action: str
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """A registered version. `verdict` is the gate's, None before it has judged; `awaits`: it passed and waits."""

    number: int
    created: datetime
    aliases: tuple[str, ...]
    promoted: bool | None
    reasons: tuple[str, ...]
    awaits: bool


@dataclass(frozen=True)
class Event:
    """Something that happened at a moment, or from one to another: promotion, rollback, retraining, trial."""

    kind: str
    start: datetime
    end: datetime | None
    said: str


@dataclass(frozen=True)
class Overview:
    model: str
    at: datetime
    serving: str | None
    watching: str | None
    paused: str | None
    trial: str | None
    windows: tuple[Window, ...]
    decisions: tuple[Decided, ...]
    versions: tuple[Version, ...]
    events: tuple[Event, ...]
    jobs: tuple[Mapping[str, Any], ...]

    @property
    def champion(self) -> Version | None:
        return next((v for v in self.versions if "champion" in v.aliases), None)

    @property
    def previous(self) -> Version | None:
        return next((v for v in self.versions if "previous" in v.aliases), None)


def gather(spec: Spec, place: Place, now: datetime | None = None) -> Overview:
    """The model of a spec as it is now."""
    status = controller.status(spec, place, last=_WINDOWS)
    entries = Journal(place.storage).entries(spec.name)
    term, trial = status["watching"], status["trial"]
    return Overview(
        model=spec.name,
        at=now or datetime.now(UTC),
        serving=status["serving"],
        watching=term.holder if term else None,
        paused=status["paused"],
        trial=f"version {trial['version']}: {'; '.join(trial['reasons']) or 'not looked at yet'}" if trial else None,
        windows=tuple(map(_window, status["windows"])),
        decisions=tuple(_decided(entry) for entry in entries if entry.kind == journal.DECISION)[-_DECISIONS:],
        versions=tuple(_version(version, entries) for version in status["versions"]),
        events=tuple(_events(entries)),
        jobs=tuple(status["jobs"]),
    )


def _window(found: Mapping[str, Any]) -> Window:
    start, end = (datetime.fromisoformat(found[name]) for name in ("start", "end"))
    return Window(
        key=f"{found['version']}-{found['number']}",
        number=found["number"],
        version=found["version"],
        start=start,
        end=end,
        rows=found["rows"],
        moved=tuple(column["name"] for column in found["columns"] if column["drifted"]),
        accuracy=found["now"]["accuracy"],
        labelled=found["now"]["labelled"],
        estimated=found["estimated"]["accuracy"],
        reference=found["reference_accuracy"],
        page=found["page"],
    )


def _decided(entry: Entry) -> Decided:
    body = entry.body
    return Decided(entry.key, entry.at, body["action"], tuple(body["reasons"]), body)


def _version(version: ModelVersion, entries: Sequence[Entry]) -> Version:
    verdicts = [e.body for e in entries if e.kind == journal.VERDICT and e.key == str(version.version)]
    verdict = verdicts[-1] if verdicts else None
    return Version(
        number=version.version,
        created=datetime.fromtimestamp(version.created, UTC),
        aliases=version.aliases,
        promoted=verdict["promote"] if verdict else None,
        reasons=tuple(verdict["reasons"]) if verdict else (),
        awaits=bool(verdict and verdict["promote"]) and CHALLENGER in version.aliases,
    )


def _events(entries: Sequence[Entry]) -> list[Event]:
    """In the order of time. A retraining and a trial last until their end, which may not have come."""
    ends = {(e.kind, e.key): e for e in entries if e.state != journal.BEGUN}
    made = []
    for entry in entries:
        if entry.kind in {journal.PROMOTION, journal.ROLLBACK} and entry.state == DONE:
            word = "promoted" if entry.kind == journal.PROMOTION else "rolled back to"
            made.append(Event(entry.kind, entry.at, None, f"version {entry.body['version']} {word}"))
        elif entry.kind in {journal.RETRAIN, journal.TRIAL, journal.PAUSE} and entry.state == journal.BEGUN:
            end = ends.get((entry.kind, entry.key))
            made.append(Event(entry.kind, entry.at, end.at if end else None, _spoken(entry, end)))
    return made


def _spoken(begun: Entry, end: Entry | None) -> str:
    if begun.kind == journal.RETRAIN:
        state = end.state if end else "running"
        return f"retraining {state}: {begun.body['submission_id']}"
    if begun.kind == journal.PAUSE:
        return f"paused by {begun.body['by']}"
    ended = "" if end is None else f": {end.body.get('action', 'ended')}"
    return f"trial of version {begun.body['version']}{ended}"


def span(overview: Overview) -> tuple[datetime, datetime]:
    """From the first to the last thing that is shown, an hour at least."""
    moments = [w.end for w in overview.windows] + [e.start for e in overview.events if overview.windows]
    moments += [e.end for e in overview.events if e.end is not None and overview.windows]
    first, last = min(moments, default=overview.at), max(moments, default=overview.at)
    return (first, last) if last - first >= timedelta(minutes=1) else (first - timedelta(hours=1), last)
