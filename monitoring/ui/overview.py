"""What the page shows, gathered from journal, registry and log. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.store.registry import ModelVersion
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import controller, hold, journal
from monitoring.journal import DONE, Entry, Journal

_WINDOWS, _DECISIONS, _JOBS = 60, 60, 20  # the latest of each


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


@dataclass(frozen=True)
class Decided:
    """A decision. `price` and `spent` are device-hours; `evidence` is all that it was made from."""

    key: str
    at: datetime
    action: str
    reasons: tuple[str, ...]
    price: float | None
    spent: float
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """A registered version. `promoted` is the gate's verdict, None before it has judged.

    `history` tells what became of it, `awaits` why it passed and waits: "" where it does not.
    """

    number: int
    created: datetime
    aliases: tuple[str, ...]
    promoted: bool | None
    reasons: tuple[str, ...]
    history: tuple[str, ...]
    awaits: str


@dataclass(frozen=True)
class Event:
    """Something that happened at a moment, or from one to another: promotion, rollback, retraining, trial, pause.

    `mark` is for the timeline, `link` leads to more.
    """

    kind: str
    start: datetime
    end: datetime | None
    said: str
    mark: str = ""
    link: str = ""


@dataclass(frozen=True)
class Job:
    """A job of the cluster. Retrainings stay in the journal when the cluster is gone; of others no time is known."""

    id: str
    status: str
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Overview:
    """`unreachable` says why the cluster's jobs are not among the jobs; None where they are, or where there is none."""

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
    jobs: tuple[Job, ...]
    unreachable: str | None

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
        jobs=tuple(_jobs(entries, status["jobs"]))[:_JOBS],
        unreachable=status["unreachable"],
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
    )


def _decided(entry: Entry) -> Decided:
    body = entry.body
    return Decided(
        entry.key, entry.at, body["action"], tuple(body["reasons"]), body["price"], body["spent"], evidence=body
    )


def _version(version: ModelVersion, entries: Sequence[Entry]) -> Version:
    verdict = next((e.body for e in entries if e.kind == journal.VERDICT and e.key == str(version.version)), None)
    waits = hold.awaiting(entries)
    return Version(
        number=version.version,
        created=datetime.fromtimestamp(version.created, UTC),
        aliases=version.aliases,
        promoted=verdict["promote"] if verdict else None,
        reasons=tuple(verdict["reasons"]) if verdict else (),
        history=tuple(_history(version.version, entries)),
        awaits=waits.body["why"] if waits is not None and waits.body["version"] == version.version else "",
    )


def _history(version: int, entries: Sequence[Entry]) -> Iterator[str]:
    decided = {entry.key: entry.body for entry in entries if entry.kind == journal.DECISION}
    for entry in entries:
        if entry.kind not in {journal.PROMOTION, journal.ROLLBACK, journal.TRIAL} or entry.state != DONE:
            continue
        body, at = entry.body, f"{entry.at:%d %b %H:%M}"
        by = f" by {body['by']}" if "by" in body else ""
        why = f": {decided[entry.key]['reasons'][-1]}" if entry.key in decided else ""
        if entry.kind == journal.TRIAL and body["version"] == version:
            yield f"{at} trial ended, {body['action']}: {'; '.join(body['reasons'])}"
        elif entry.kind == journal.PROMOTION and body["version"] == version:
            yield f"{at} promoted{by}"
        elif entry.kind == journal.ROLLBACK and body["version"] == version:
            yield f"{at} champion again, rolled back to{by}"
        elif entry.kind == journal.ROLLBACK and why and decided[entry.key]["version"] == version:
            yield f"{at} left for version {body['version']}{why}"


def _events(entries: Sequence[Entry]) -> Iterator[Event]:
    """In the order of time. A retraining and a trial last until their end, which may not have come."""
    ends = {(e.kind, e.key): e for e in entries if e.state != journal.BEGUN}
    for entry in entries:
        end = ends.get((entry.kind, entry.key))
        until, body = end.at if end else None, entry.body
        if entry.kind == journal.PROMOTION and entry.state == DONE:
            card = f"/cards/{body['version']}"
            yield Event(entry.kind, entry.at, None, f"version {body['version']} promoted", f"v{body['version']}", card)
        elif entry.kind == journal.ROLLBACK and entry.state == DONE:
            said = f"rolled back to version {body['version']}"
            yield Event(entry.kind, entry.at, None, said, f"back to v{body['version']}", f"/cards/{body['version']}")
        elif entry.kind == journal.RETRAIN and entry.state == journal.BEGUN:
            said = f"retraining {end.state if end else 'running'}: {body['submission_id']}"
            yield Event(entry.kind, entry.at, until, said, link=f"#job-{body['submission_id']}")
        elif entry.kind == journal.TRIAL and entry.state == journal.BEGUN:
            said = f"trial of version {body['version']}" + (f": {end.body.get('action', 'ended')}" if end else "")
            yield Event(entry.kind, entry.at, until, said, link=f"#version-{body['version']}")
        elif entry.kind == journal.PAUSE and entry.state == journal.BEGUN:
            yield Event(entry.kind, entry.at, until, f"paused by {body['by']}")


def _jobs(entries: Sequence[Entry], of_cluster: Sequence[Mapping[str, Any]]) -> list[Job]:
    """Retrainings and whatever else the cluster runs for the model, the latest first."""
    known = {job["submission_id"]: job["status"] for job in of_cluster}
    ends = {e.key: e for e in entries if e.kind == journal.RETRAIN and e.state != journal.BEGUN}
    made = []
    for entry in entries:
        if entry.kind == journal.RETRAIN and entry.state == journal.BEGUN:
            name, end = entry.body["submission_id"], ends.get(entry.key)
            status = end.body["status"] if end else known.get(name, "begun")
            made.append(Job(name, status, entry.at, end.at if end else None))
    others = [Job(name, status) for name, status in known.items() if name not in {job.id for job in made}]
    return [*reversed(others), *reversed(made)]


def span(overview: Overview) -> tuple[datetime, datetime]:
    """From the first to the last thing that is shown, an hour at least."""
    first = min((window.start for window in overview.windows), default=overview.at)
    moments = [window.end for window in overview.windows]
    moments += [moment for event in overview.events for moment in (event.start, event.end) if moment is not None]
    last = max(moments, default=overview.at)
    return min(first, last - timedelta(hours=1)), last
