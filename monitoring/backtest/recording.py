"""What a replay is made of: a model's log with its labels, and the version that answered first with its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.console import meter
from cluster.errors import NotFoundError
from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from jobs import tasks
from jobs.data import dataset
from jobs.data.split import TRAIN
from jobs.spec import Spec
from monitoring.windows import labels_of
from serve.log.predictions import prediction_log

from .replay import Replay, Rows

_CHUNK = 256

Embed = Callable[[Path, Sequence[str]], NDArray[np.float32]]


class Versions(Protocol):
    """What a recording asks of the registry."""

    def get(self, model: str, version: int) -> ModelVersion: ...

    def download(self, version: ModelVersion) -> Path: ...


def gather(spec: Spec, storage: Storage, registry: Versions, embed: Embed) -> tuple[Replay, ModelVersion]:
    """The log of a model, and the version that answered its first row, whose embeddings are taken.

    Raises NotFoundError without a labelled row, or where the version is no longer registered.
    """
    log = _log(storage, spec.name)
    number = int(log["version"].iloc[0])
    version = registry.get(spec.name, number)
    folder = registry.download(version)
    reference = pd.read_parquet(folder / "reference.parquet", columns=["input", "true", "embedding"])
    train = dataset.read(storage, spec.name, version.tags["dataset"]).rows(storage, TRAIN)
    train = train.rename(columns={"label": "true"})
    replay = Replay(
        Rows(train[["input", "true"]], embed(folder, list(train["input"]))),
        Rows(reference[["input", "true"]], np.stack(list(reference["embedding"]))),
        Rows(log, _points(log, number, lambda inputs: embed(folder, inputs))),
        tasks.get(spec.task).inputs,
        datetime.fromtimestamp(version.created, UTC),
        spec.retrain.feedback_test_share,
    )
    return replay, version


def embeddings(folder: Path, inputs: Sequence[str]) -> NDArray[np.float32]:
    """Of the model version in a folder, (n, hidden)."""
    from jobs.models.predictor import Predictor

    predictor, made = Predictor.load(folder), []
    with meter("embeddings", len(inputs)) as shown:
        for at in range(0, len(inputs), _CHUNK):
            made += [output.embedding for output in predictor(inputs[at : at + _CHUNK])]
            shown.update(len(made))
    return np.stack(made).astype(np.float32)


def _log(storage: Storage, model: str) -> pd.DataFrame:
    columns = ["prediction_id", "at", "version", "input", "embedding"]
    rows: pd.DataFrame = prediction_log(storage).read([("model", "=", model)], columns).to_pandas()
    rows = rows.merge(labels_of(storage, model, rows["prediction_id"]), on="prediction_id", how="left")
    if not rows["true"].notna().any():
        mend = "serve the model, and send true labels to /feedback or take them with `rehone label`"
        raise NotFoundError("the prediction log has no row with a true label", where=model, mend=mend)
    return rows.sort_values(["at", "prediction_id"], ignore_index=True)


def _points(
    log: pd.DataFrame, number: int, embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Those that the version has logged, and new ones for the rows that another version has answered."""
    own = (log["version"] == number).to_numpy()
    first = np.stack(list(log.loc[own, "embedding"])).astype(np.float32)
    points = np.empty((len(log), first.shape[1]), np.float32)
    points[own] = first
    if not own.all():
        points[~own] = embed(list(log.loc[~own, "input"]))
    return points
