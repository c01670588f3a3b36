"""Lineage: from one answer back to the version, code, spec, data, job and decision behind it; from data to answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.errors import NotFoundError
from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from jobs import show
from jobs.data import dataset
from jobs.data.dataset import DatasetVersion
from jobs.data.split import SPLITS
from jobs.models import manifest
from jobs.pipeline import Place
from serve.log.predictions import feedback_log, parse_id, prediction_log

from . import history

_ANSWER = ["prediction_id", "at", "input", "label", "confidence"]


@dataclass(frozen=True)
class Parent:
    """A version that another was trained on from. `data` is None when the version or its dataset is gone."""

    version: int
    data: DatasetVersion | None


@dataclass(frozen=True)
class Origin:
    """What a version is made of; `job` is None for one made by hand. `line` and `causes` are `history.told`'s.

    `parents` are those of `line`, in its order.
    """

    version: ModelVersion
    base_model: str
    spec: str
    code: str
    job: str | None
    data: DatasetVersion
    line: tuple[int, ...]
    parents: tuple[Parent, ...]
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """One logged answer. `true` is the label that came in last, None while there is none."""

    prediction_id: str
    at: datetime
    input: str
    label: str
    confidence: float
    true: str | None
    origin: Origin


@dataclass(frozen=True)
class Use:
    """A version that was trained on a dataset version or on one made from it. `first` and `last` are of its answers."""

    version: ModelVersion
    data: DatasetVersion
    answers: int
    first: datetime | None
    last: datetime | None


def prediction(prediction_id: str, place: Place) -> Traced:
    """Raises UserError for what is no prediction id, NotFoundError where it or its version is not known."""
    model, number = parse_id(prediction_id)
    one: list[tuple[str, str, Any]] = [("model", "=", model), ("prediction_id", "=", prediction_id)]
    found: list[dict[str, Any]] = prediction_log(place.storage).read(one, _ANSWER).to_pylist()
    if not found:
        raise NotFoundError(
            "is not in the prediction log of this storage root",
            where=prediction_id,
            mend="an answer moves there from its server's spool every serving.flush_seconds; look again",
        )
    labels = feedback_log(place.storage).read(one, ["at", "label"]).to_pylist()
    last = max(labels, key=lambda row: row["at"])["label"] if labels else None
    return Traced(**found[0], true=last, origin=origin(place.registry.get(model, number), place))


def origin(version: ModelVersion, place: Place) -> Origin:
    """Of a registered version. Raises NotFoundError when its dataset version is gone."""
    made, told = manifest.of(place.registry, version), history.told(version, place)
    return Origin(
        version=version,
        base_model=made["base_model"],
        spec=version.tags["spec"],
        code=made["code"],
        job=made["job"],
        data=dataset.find(place.storage, f"{made['dataset']['name']}/{made['dataset']['version']}"),
        line=told.line,
        parents=_parents(version.model, told.line, place),
        causes=told.causes,
    )


def parents(found: Iterable[Parent]) -> str:
    """What a person reads of a line of parents, the nearest first; "" for none."""
    rows = [[f"version {parent.version}", *_data(parent.data)] for parent in found]
    return show.table("the versions before it", ["", "dataset", *SPLITS, "from"], rows) if rows else ""


def uses(reference: str, place: Place) -> list[Use]:
    """Every version that a dataset version went into, oldest first. `reference` as `dataset.find` takes it.

    Raises NotFoundError.
    """
    wanted = dataset.find(place.storage, reference)
    found = []
    for version in place.registry.versions(wanted.name):
        data = dataset.read(place.storage, wanted.name, version.tags["dataset"])
        if wanted in [data, *dataset.ancestors(place.storage, data)]:
            found.append(_use(version, data, place.storage))
    return found


def _parents(model: str, line: Iterable[int], place: Place) -> tuple[Parent, ...]:
    used = {version.version: version.tags["dataset"] for version in place.registry.versions(model)}
    kept = {data.version: data for data in dataset.versions(place.storage, model)}
    return tuple(Parent(number, kept.get(used.get(number, ""))) for number in line)


def _data(data: DatasetVersion | None) -> list[object]:
    if data is None:
        return ["gone", *("" for _ in SPLITS), ""]
    return [f"{data.name}/{data.version}", *map(data.size, SPLITS), data.source]


def _use(version: ModelVersion, data: DatasetVersion, storage: Storage) -> Use:
    one: list[tuple[str, str, Any]] = [("model", "=", version.model), ("version", "=", version.version)]
    times = prediction_log(storage).read(one, ["at"])["at"].to_pylist()
    return Use(version, data, len(times), min(times, default=None), max(times, default=None))
