"""What became of a version, from the registry and the journal: its parents, its verdict, what led to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cluster.store.registry import ModelVersion
from jobs.card.facts import Told
from jobs.models import manifest
from jobs.pipeline import Place
from serve.versions import certificate

from .journal import BEGUN, DECISION, DONE, PROMOTION, RETRAIN, ROLLBACK, TRIAL, VERDICT, Entry, Journal


def told(version: ModelVersion, place: Place) -> Told:
    """Of a registered version."""
    entries = Journal(place.storage).entries(version.model)
    job = manifest.of(place.registry, version)["job"]
    verdicts = [e.body for e in entries if e.kind == VERDICT and e.key == str(version.version)]
    return Told(
        version=version,
        line=line(version, place.registry.versions(version.model)),
        verdict=verdicts[-1] if verdicts else None,
        causes=(*(_said(entry) for entry in causes(entries, version.version, job)), *_parity(version)),
    )


def _parity(version: ModelVersion) -> Iterator[str]:
    said = certificate.said(version.tags)
    if said:
        yield said


def line(version: ModelVersion, versions: Iterable[ModelVersion]) -> tuple[int, ...]:
    """The parent, its parent and so on."""
    parents = {v.version: int(v.tags["parent"]) for v in versions if "parent" in v.tags}
    found: list[int] = []
    at = version.version
    while at in parents:
        at = parents[at]
        found.append(at)
    return tuple(found)


def causes(entries: Sequence[Entry], version: int, job: str | None) -> list[Entry]:
    """Of a journal: the decision that started `job`, that retraining, the verdict, the moves of aliases; in order."""
    jobs = {e.key for e in entries if e.kind == RETRAIN and e.body["submission_id"] == job}
    return [entry for entry in entries if _concerns(entry, version, jobs)]


def _concerns(entry: Entry, version: int, jobs: set[str]) -> bool:
    if entry.kind in {DECISION, RETRAIN}:
        return entry.key in jobs
    if entry.kind == VERDICT:
        return entry.key == str(version)
    return entry.state == DONE and entry.body.get("version") == version and entry.kind in {PROMOTION, ROLLBACK, TRIAL}


def _said(entry: Entry) -> str:
    return f"{entry.at:%Y-%m-%d %H:%M:%S} UTC, {' '.join(_words(entry))}"


def _words(entry: Entry) -> Iterator[str]:
    body: dict[str, Any] = dict(entry.body)
    if entry.kind == DECISION:
        yield f"decision on window {body['number']} of version {body['version']}: {body['action']},"
        yield "; ".join(body["reasons"])
    elif entry.kind == RETRAIN:
        yield f"retraining {'begun' if entry.state == BEGUN else 'ended'}: job {body['submission_id']}"
    elif entry.kind == VERDICT:
        yield f"verdict: {'promoted' if body['promote'] else 'refused'}"
    elif entry.kind == TRIAL:
        yield f"trial: {body['action']}, {'; '.join(body['reasons'])}"
    else:
        yield f"{entry.kind}: champion from here on"
