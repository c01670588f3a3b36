"""Production, played: rows as the server logs them, a registry in memory, a job API that remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from jobs.inputs.texts import vocabulary
from monitoring.drift.compare import ColumnDrift
from monitoring.drift.detect import DriftResult
from monitoring.drift.estimate import Estimate
from serve.log.predictions import feedback_log, prediction_log

BEGAN = datetime(2026, 3, 1, 23, 50, tzinfo=UTC)
"""Ten minutes before midnight: windows cross a day."""
MODEL = "moods"
WORDS = ["good", "bad", "fine", "awful", "day", "night", "film", "plot", "actor"]


def sample(rows: int, rng: np.random.Generator, *, shift: float = 0.0, dims: int = 8) -> pd.DataFrame:
    """Rows as a version answers them; a shift moves embeddings, lengths and words."""
    longer = 4 + int(10 * shift)
    words = WORDS + (["zzyzx"] * int(20 * shift))
    labels = rng.choice(["neg", "pos"], rows, p=[0.4, 0.6])
    return pd.DataFrame(
        {
            "input": [" ".join(rng.choice(words, rng.integers(2, 2 + longer))) for _ in range(rows)],
            "true": np.where(rng.random(rows) < 0.9, labels, np.where(labels == "pos", "neg", "pos")),
            "label": labels,
            "confidence": rng.beta(8 - 4 * shift, 2, rows),
            "embedding": list((rng.normal(size=(rows, dims)) + shift).astype(np.float32)),
        }
    )


def log(
    storage: Storage, rows: pd.DataFrame, *, start: int = 0, version: int = 1, labelled: int = 0, model: str = MODEL
) -> list[str]:
    """Append rows to the prediction log, 30 s apart from row `start` on, and the true labels of the first `labelled`."""
    times = [BEGAN + timedelta(seconds=30 * (start + i)) for i in range(len(rows))]
    ids = [f"{model}.{version}.{start + i:06d}" for i in range(len(rows))]
    records = [
        {
            **row,
            "prediction_id": prediction,
            "at": at,
            "day": f"{at:%Y-%m-%d}",
            "model": model,
            "version": version,
            "scores": "{}",
        }
        for prediction, at, row in zip(ids, times, rows.drop(columns="true").to_dict("records"), strict=True)
    ]
    prediction_log(storage).append(records)
    known = dict(zip(ids[:labelled], rows["true"], strict=False))
    if known:
        feedback(storage, known, at=times[-1], model=model)
    return ids


def feedback(storage: Storage, labels: dict[str, str], *, at: datetime, model: str = MODEL) -> None:
    day = f"{at:%Y-%m-%d}"
    feedback_log(storage).append(
        [{"prediction_id": key, "model": model, "day": day, "at": at, "label": label} for key, label in labels.items()]
    )


def result(**changed: Any) -> DriftResult:
    """A quiet window."""
    quiet = DriftResult(
        model=MODEL,
        version=1,
        number=1,
        start=BEGAN,
        end=BEGAN + timedelta(hours=1),
        last="moods.1.000249",
        rows=250,
        columns=(
            ColumnDrift("confidence", "ks", 0.4, 0.4, 0.0017, drifted=False),
            ColumnDrift("embedding", "permutation mmd", 0.001, 0.5, 0.0061, drifted=False),
        ),
        drifted=False,
        accuracy=None,
        labelled=0,
        reference_accuracy=0.89,
        estimated=Estimate(0.88, 0.86, 0.90, 0.01),
        report="drift/moods/1-1.html",
        page="drift/moods/1-1-summary.html",
    )
    return DriftResult(**{**quiet.__dict__, **changed})


def drifted(**changed: Any) -> DriftResult:
    """A window whose embedding moved."""
    columns = (
        ColumnDrift("confidence", "ks", 0.4, 0.4, 0.0017, drifted=False),
        ColumnDrift("embedding", "permutation mmd", 0.0970, 0.0008, 0.0061, drifted=True),
    )
    return result(columns=columns, drifted=True, **changed)


@dataclass
class Registry:
    """Versions whose files are in a folder; `number` is the champion, `before` the one it followed."""

    folder: Path
    number: int = 1
    before: int | None = None
    created: datetime = BEGAN - timedelta(days=1)
    downloads: int = 0

    def champion(self, model: str) -> ModelVersion:
        return self._version(model, self.number, "champion")

    def find(self, model: str, alias: str) -> ModelVersion | None:
        number = {"champion": self.number, "previous": self.before}[alias]
        return None if number is None else self._version(model, number, alias)

    def promote(self, version: int) -> None:
        """As the real one does it: `previous` first."""
        if version != self.number:
            self.before, self.number = self.number, version

    def _version(self, model: str, number: int, alias: str) -> ModelVersion:
        return ModelVersion(model, number, "run", str(self.folder), {}, (alias,), self.created.timestamp())

    def download(self, version: ModelVersion) -> Path:
        self.downloads += 1
        return self.folder

    def read(self, version: ModelVersion, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def publish(folder: Path, reference: pd.DataFrame) -> Registry:
    folder.mkdir(exist_ok=True)
    reference.to_parquet(folder / "reference.parquet", index=False)
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary(WORDS)))
    return Registry(folder)


@dataclass
class JobApi:
    """Ray's job API, as far as the watch sees it: never two jobs of one id."""

    jobs: dict[str, str] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)

    def submit(self, submission_id: str) -> None:
        if submission_id not in self.jobs:
            self.jobs[submission_id] = "PENDING"
            self.created.append(submission_id)

    def status(self, submission_id: str) -> str | None:
        return self.jobs.get(submission_id)
