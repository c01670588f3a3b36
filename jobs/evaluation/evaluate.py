"""A model version against the untouched test split: a Scorecard for old rows and, after feedback, one for new rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Storage
from jobs import tasks
from jobs.data.dataset import NEW, OLD, DatasetVersion
from jobs.data.split import TEST
from jobs.predictor import Predictor
from jobs.spec import EvaluationSpec

from . import footprint, robustness, slices
from .calibration import calibration
from .footprint import Footprint
from .robustness import Robustness
from .scorecard import Scorecard, score
from .slices import BY, TOPIC


@dataclass(frozen=True)
class Evaluation:
    """A Scorecard for each part of the test rows, and what is known of the model as a whole."""

    scorecards: Mapping[str, Scorecard]
    robustness: tuple[Robustness, ...]
    footprint: Footprint

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def answers(
    predictor: robustness.Answers, data: DatasetVersion, storage: Storage, spec: EvaluationSpec
) -> pd.DataFrame:
    """The test split as the model answers it: `input, true, label, confidence, scores, embedding, slice`.

    `scores` are in the order of the version's labels. Columns that begin with BY hold its slices and topic.
    """
    rows = data.rows(storage, TEST)
    outputs = predictor(list(rows["input"]))
    newest = data.part(rows, NEW).index
    by = {BY + name: rows[name] for name in data.slices}
    return pd.DataFrame(
        {
            "input": rows["input"],
            "true": rows["label"],
            "label": [o.label for o in outputs],
            "confidence": [o.confidence for o in outputs],
            "scores": [[o.scores[label] for label in data.labels] for o in outputs],
            "embedding": [o.embedding.astype(np.float32) for o in outputs],
            "slice": [NEW if index in newest else OLD for index in rows.index],
            **by,
            BY + TOPIC: tasks.get(data.task).inputs.topics(list(rows["input"]), spec.topics),
        }
    )


def scorecards(rows: pd.DataFrame, labels: tuple[str, ...], spec: EvaluationSpec) -> Mapping[str, Scorecard]:
    """A Scorecard for `old` and, where there are such rows, for `new`."""
    return {str(name): _scorecard(part, labels, spec) for name, part in rows.groupby("slice", sort=False)}


def evaluate(
    rows: pd.DataFrame, served: Predictor, folder: Path, data: DatasetVersion, spec: EvaluationSpec
) -> Evaluation:
    """From a version's answers, the version as it is served, and its folder."""
    changes = tasks.get(data.task).inputs.CHANGES
    return Evaluation(
        scorecards=scorecards(rows, data.labels, spec),
        robustness=robustness.measure(served, rows, changes, spec.robustness_rows),
        footprint=footprint.measure(served, folder, list(rows["input"])),
    )


def _scorecard(rows: pd.DataFrame, labels: tuple[str, ...], spec: EvaluationSpec) -> Scorecard:
    shares = np.array(list(rows["scores"]))
    right = (rows["true"] == rows["label"]).to_numpy()
    found = slices.slices(rows, labels, spec.min_slice_rows)
    card = score(
        list(rows["true"]),
        list(rows["label"]),
        labels,
        shares=shares,
        resamples=spec.bootstrap,
        confidence=spec.confidence,
    )
    sure = calibration(rows["confidence"].to_numpy(float), right)
    return replace(card, calibration=sure, slices=found, gaps=slices.gaps(found))
