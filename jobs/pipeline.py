"""The chain from a dataset version to a registered challenger, as both a first training and a retraining walk it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.session import require
from cluster.settings import Settings
from cluster.store.registry import ModelVersion, Registry
from cluster.store.storage import Storage
from cluster.store.tracking import Run, Tracker
from jobs.data import preparation
from jobs.data.dataset import DatasetVersion
from jobs.forgetting import attempts
from jobs.models.provenance import code_version
from jobs.models.publish import Published, publish
from jobs.training.loop import Work
from jobs.training.unfinished import Unfinished

from . import tune
from .models import elsewhere
from .spec import Spec
from .sweep.points import held
from .training import train
from .tune import Swept


@dataclass(frozen=True)
class Place:
    """Where a pipeline keeps things, made once from the settings."""

    settings: Settings
    storage: Storage
    registry: Registry

    @classmethod
    def from_settings(cls, settings: Settings) -> Place:
        return cls(settings, Storage.from_settings(settings), Registry(settings))


def prepare(spec: Spec, place: Place) -> DatasetVersion:
    """Write the spec's dataset version. Raises DataError."""
    return preparation.prepare(spec, place.storage)


def tune_spec(spec: Spec, dataset: DatasetVersion, place: Place) -> tuple[Spec, Swept]:
    """Sweep, and the spec with the winner's values. Ray must be connected. Raises TrainingError, UserError."""
    require([spec.scaling.bundle] * spec.sweep.workers)
    with open_run(spec, dataset, place, "sweep") as run:
        swept = tune.sweep(train.work(spec, dataset, place.storage), place.storage, run)
    tuned_spec = spec.with_values(swept.best.values)
    place.storage.write_json(f"sweeps/{spec.name}.json", swept.to_dict())
    return tuned_spec, swept


def train_and_publish(
    spec: Spec,
    dataset: DatasetVersion,
    place: Place,
    *,
    start: Path | None = None,
    parent: ModelVersion | None = None,
    fresh: bool = False,
) -> Published:
    """Train, score, register as challenger. Ray must be connected. Raises TrainingError.

    Goes on with a run of the same training that was cut off, unless it is to begin `fresh` (`unfinished.py`).
    When the spec has what a sweep found best, the run carries the sweep's table and picture too.
    Going on from the model in `start`, it is tried again while the challenger forgets too much (`attempts.py`).
    """
    require(spec.scaling.bundles)
    kind = "train" if parent is None else "retrain"
    known = Unfinished(place.storage, Tracker(place.settings, spec.name), fresh)

    def opened(job: Work | None) -> AbstractContextManager[Run]:
        new = partial(open_run, spec, dataset, place, kind)
        return new() if job is None else known.run(job, kind, new)

    with ExitStack() as runs:
        if start is None:
            job = train.work(spec, dataset, place.storage)
            run, forgotten = runs.enter_context(opened(job)), None
            trained = train.fit(job, place.storage, run)
        else:
            chosen = attempts.choose(spec, dataset, place.storage, start, opened, runs)
            trained, run, forgotten = chosen.trained, chosen.run, chosen.forgetting
        run.log_metrics({"train_seconds": trained.seconds})
        behind = _sweep_behind(spec, place)
        if behind is not None:
            tune.log(behind, run)
        return publish(
            spec,
            dataset,
            trained.folder,
            curve=trained.curve,
            storage=place.storage,
            registry=place.registry,
            run=run,
            parent=parent,
            forgetting=forgotten,
        )


def publish_made(spec: Spec, dataset: DatasetVersion, place: Place, given: Path) -> Published:
    """Score a model that was made elsewhere on the spec's test rows and register it as challenger. Raises UserError."""
    with TemporaryDirectory() as folder, open_run(spec, dataset, place, "register") as run:
        elsewhere.laid_out(spec, dataset.labels, given, Path(folder))
        return publish(spec, dataset, Path(folder), curve=(), storage=place.storage, registry=place.registry, run=run)


def cpus(spec: Spec) -> int:
    """Logical CPUs that serving, a retraining beside it and its sweep need at once, so that none waits for another."""
    workers = spec.scaling.most_workers * spec.scaling.cpus_per_worker
    trials = spec.sweep.concurrent * spec.sweep.workers * spec.scaling.cpus_per_worker
    return spec.serving.most_replicas + max(workers, trials) + 2


def tuned(spec: Spec, place: Place) -> dict[str, Any]:
    """The values that the last sweep of this project found best; empty when there was none."""
    swept = _last_sweep(spec, place)
    return {k: v for k, v in swept.best.values.items() if k in spec.sweep.search} if swept else {}


def _last_sweep(spec: Spec, place: Place) -> Swept | None:
    path = f"sweeps/{spec.name}.json"
    return Swept.from_dict(place.storage.read_json(path)) if place.storage.exists(path) else None


def _sweep_behind(spec: Spec, place: Place) -> Swept | None:
    """The last sweep, when its best values are the spec's own."""
    swept = _last_sweep(spec, place)
    return swept if swept and held(spec, swept.best.values) == swept.best.values else None


def open_run(spec: Spec, dataset: DatasetVersion, place: Place, kind: str) -> AbstractContextManager[Run]:
    """An MLflow run of the project with its spec, dataset and code. `kind` is its verb."""
    params = {"spec": json.dumps(spec.model_dump(mode="json")), "dataset": dataset.version}
    params |= {"base_model": spec.base_model, "workers": spec.scaling.said_workers}
    params |= {k: str(v) for part in ("training", "method") for k, v in getattr(spec, part).model_dump().items()}
    tags = {"kind": kind, "dataset": dataset.version, "spec": spec.hash, "code": code_version()}
    return Tracker(place.settings, spec.name).run(kind, params, tags, dataset.used(place.storage))
