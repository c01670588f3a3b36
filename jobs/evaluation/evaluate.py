"""A model version against the untouched test split: a Scorecard for old rows and, after feedback, one for new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.store.storage import Storage
from jobs import tasks
from jobs.data.dataset import NEW, OLD, DatasetVersion
from jobs.data.split import TEST
from jobs.models.predictor import Predictor
from jobs.spec import EvaluationSpec
from jobs.targets import Targets

from . import footprint, ranks, robustness, slices
from .calibration import calibration
from .footprint import Footprint
from .ranks import RANK
from .robustness import Robustness
from .scorecard import Scorecard, score, score_others
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

    `scores` are in the order of the version's labels, empty where the task has none. `rank` is there where labels are
    not listed: the place of the true one among the scores. Columns that begin with BY hold its slices and topic.
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
            "scores": [list(o.scores.values()) for o in outputs],
            "embedding": [o.embedding.astype(np.float32) for o in outputs],
            "slice": [NEW if index in newest else OLD for index in rows.index],
            **({} if tasks.get(data.task).targets.LISTED else {RANK: ranks.ranks(list(rows["label"]), outputs)}),
            **by,
            BY + TOPIC: tasks.get(data.task).inputs.topics(list(rows["input"]), spec.topics),
        }
    )


def scorecards(
    rows: pd.DataFrame, labels: tuple[str, ...], targets: Targets, spec: EvaluationSpec
) -> Mapping[str, Scorecard]:
    """A Scorecard for `old` and, where there are such rows, for `new`."""
    return {str(name): _scorecard(part, labels, targets, spec) for name, part in rows.groupby("slice", sort=False)}


def evaluate(
    rows: pd.DataFrame, served: Predictor, folder: Path, data: DatasetVersion, spec: EvaluationSpec
) -> Evaluation:
    """From a version's answers, the version as it is served, and its folder."""
    task = tasks.get(data.task)
    return Evaluation(
        scorecards=scorecards(rows, data.labels, task.targets, spec),
        robustness=robustness.measure(served, rows, task.inputs.CHANGES, spec.robustness_rows),
        footprint=footprint.measure(served, folder, list(rows["input"])),
    )


def score_of(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: tuple[str, ...],
    targets: Targets,
    spec: EvaluationSpec,
    shares: NDArray[np.float64] | None = None,
) -> Scorecard:
    """The Scorecard of a task's answers without slices and calibration. `shares` as `score` takes them."""
    drawn: Any = {"resamples": spec.bootstrap, "confidence": spec.confidence}
    if targets.CLOSED:
        return score(true, predicted, labels, shares=shares, **drawn)
    return score_others(true, predicted, labels, targets, **drawn)


def _scorecard(rows: pd.DataFrame, labels: tuple[str, ...], targets: Targets, spec: EvaluationSpec) -> Scorecard:
    right = (rows["true"] == rows["label"]).to_numpy()
    labels = labels if targets.LISTED else ()
    found = slices.slices(rows, labels, spec.min_slice_rows)
    shares = np.array(list(rows["scores"])) if targets.CLOSED else None
    card = score_of(list(rows["true"]), list(rows["label"]), labels, targets, spec, shares)
    if RANK in rows:
        card = replace(card, metrics={**card.metrics, **ranks.score(rows[RANK].to_numpy(), spec)})
    sure = calibration(rows["confidence"].to_numpy(float), right)
    return replace(card, calibration=sure, slices=found, gaps=slices.gaps(found))
