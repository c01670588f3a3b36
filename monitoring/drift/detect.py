"""Drift of one window against the reference: Evidently computes and draws, `compare.py` decides what is an alarm.

Evidently's defaults flag some column in most windows in which nothing has changed. Here a window without drift is
flagged with probability `MonitoringSpec.level` at most, so that `monitoring.looks` of them raise any alarm with
probability `monitoring.false_alarm_rate`. The only file that imports Evidently, and only inside functions: the import
takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cluster.store.storage import Storage
from jobs import tasks
from jobs.inputs import texts
from jobs.spec import Spec
from jobs.tasks.task import Task
from monitoring.windows import ENOUGH_LABELS, Position, Window

from . import compare, estimate, page, permutation, quality, reports
from .compare import CHI_SQUARE, EMBEDDING, KS, ColumnDrift, Sample
from .estimate import Estimate
from .page import Side

if TYPE_CHECKING:
    from evidently import Dataset
    from evidently.core.report import Snapshot

CONFIDENCE = "confidence"

_DRAWN_ROWS = 1000
"""Rows a side that Evidently gets; of more, its figures are those of a drawn sample."""
_EMBEDDED_ROWS = 500
"""Rows a side in its picture of the embedding."""


@dataclass(frozen=True)
class DriftResult:
    """What one window says. `accuracy` is None without labels, `estimated` is what confidences let expect.

    `page` is for people and `report` is Evidently's: HTML files, as paths under the storage root.
    `last` is the id of the window's last prediction, after which the next window begins.
    """

    model: str
    version: int
    number: int
    start: datetime
    end: datetime
    last: str
    rows: int
    columns: tuple[ColumnDrift, ...]
    drifted: bool
    accuracy: float | None
    labelled: int
    reference_accuracy: float
    estimated: Estimate
    report: str
    page: str

    @property
    def key(self) -> str:
        return f"{self.version}-{self.number}"

    @property
    def position(self) -> Position:
        return Position(self.number, self.end, self.last)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: times in ISO 8601."""
        return asdict(self) | {"start": self.start.isoformat(), "end": self.end.isoformat()}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> DriftResult:
        times = {name: datetime.fromisoformat(tree[name]) for name in ("start", "end")}
        columns = tuple(ColumnDrift(**column) for column in tree["columns"])
        return cls(**{**tree, **times, "columns": columns, "estimated": Estimate(**tree["estimated"])})


def detect(
    window: Window, reference: pd.DataFrame, vocabulary: Sequence[str], spec: Spec, storage: Storage
) -> DriftResult:
    """Compare a window with the reference (`input, true, label, confidence, embedding`) and keep the report.

    `vocabulary` is what `Inputs.vocabulary` gave of the training inputs.
    """
    task, level = tasks.get(spec.task), spec.monitoring.level
    labels = _labels(reference, task)
    ref, cur = (_dataset(rows, task, labels, vocabulary) for rows in (reference, window.rows))
    samples = _sample(ref, task, labels), _sample(cur, task, labels)
    columns = compare.samples(*samples, level)
    drawn_ref, drawn_cur = (_dataset(_drawn(rows), task, labels, vocabulary) for rows in (reference, window.rows))
    snapshot = _run(drawn_ref, drawn_cur, columns)
    measured = window.measured
    result = DriftResult(
        model=window.model,
        version=window.version,
        number=window.number,
        start=window.start,
        end=window.end,
        last=str(window.rows["prediction_id"].iloc[-1]),
        rows=len(window.rows),
        columns=columns,
        drifted=any(column.drifted for column in columns),
        accuracy=_accuracy(measured) if len(measured) else None,
        labelled=len(measured),
        reference_accuracy=_accuracy(reference),
        estimated=_estimated(reference, window.rows, level),
        report=reports.keep(storage, window.model, window.key, snapshot),
        page=page.path(window.model, window.key),
    )
    enough = len(measured) >= ENOUGH_LABELS and task.targets.CLOSED
    judged = quality.snapshot(reference, measured) if enough else None
    if judged is not None:
        reports.run(storage, window.model, f"{window.key}-quality", judged)
    page.keep(storage, result, Side(reference, samples[0]), Side(window.rows, samples[1]), spec)
    return result


def _accuracy(rows: pd.DataFrame) -> float:
    return float((rows["true"] == rows["label"]).mean())


def _estimated(reference: pd.DataFrame, rows: pd.DataFrame, level: float) -> Estimate:
    ref, cur = _drawn(reference), _drawn(rows)
    right = (ref["true"] == ref["label"]).to_numpy()
    return estimate.accuracy(ref["confidence"].to_numpy(float), right, cur["confidence"].to_numpy(float), level)


def _drawn(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if len(rows) <= _DRAWN_ROWS else rows.sample(_DRAWN_ROWS, random_state=0)


def _labels(reference: pd.DataFrame, task: Task) -> list[str]:
    """Those of the reference: a label that only a window has is news of its own kind."""
    known = {*reference["true"], *reference["label"]}
    return sorted({part for target in known for part in task.targets.parts(target)})


def _dataset(rows: pd.DataFrame, task: Task, labels: Sequence[str], vocabulary: Sequence[str]) -> Dataset:
    """Rows as Evidently takes them, described: one column a number, and the text where there is one."""
    from evidently import DataDefinition, Dataset
    from evidently.descriptors import NonLetterCharacterPercentage, TextLength

    inputs, matrix = task.inputs, np.stack(list(rows["embedding"]))
    answers = task.targets.watched(list(rows["label"]), labels)
    frame = inputs.describe(list(rows["input"]), vocabulary).assign(**{CONFIDENCE: rows["confidence"].to_numpy()})
    names = [f"embedding_{i}" for i in range(matrix.shape[1])]
    frame = pd.concat([frame, answers, pd.DataFrame(matrix, columns=names)], axis=1)
    written = inputs.NAME == texts.NAME
    if written:
        # Evidently's non-letter share divides by the length.
        frame["input"] = rows["input"].where(rows["input"] != "", " ").to_numpy()
    own = [TextLength("input", alias=texts.LENGTH), NonLetterCharacterPercentage("input", alias=texts.NON_LETTER)]
    return Dataset.from_pandas(
        frame,
        data_definition=DataDefinition(
            text_columns=["input"] if written else [],
            categorical_columns=[name for name in answers if not compare.is_number(answers[name])],
            numerical_columns=[
                *(name for name in (*inputs.DESCRIPTORS, CONFIDENCE) if name in frame),
                *(name for name in answers if compare.is_number(answers[name])),
            ],
            embeddings={EMBEDDING: names},
        ),
        descriptors=own if written else [],
    )


def _sample(dataset: Dataset, task: Task, labels: Sequence[str]) -> Sample:
    frame, answers = dataset.as_dataframe(), task.targets.watched([], labels)
    embedding = frame[[name for name in frame.columns if name.startswith("embedding_")]]
    return Sample(frame[[*task.inputs.DESCRIPTORS, CONFIDENCE, *answers]], embedding.to_numpy(np.float64))


def _run(reference: Dataset, current: Dataset, columns: Sequence[ColumnDrift]) -> Snapshot:
    """Evidently's report of the same tests at the same thresholds; its library has no domain classifier for columns."""
    from evidently import Report
    from evidently.legacy.metrics.data_drift import embeddings_drift
    from evidently.metrics import ValueDrift
    from evidently.metrics.embeddings import EmbeddingsDrift, MMDDriftMethod
    from sklearn.decomposition import PCA

    # Evidently has no argument for either. For its picture of where the embeddings lie it would take t-SNE, which costs
    # more than all the rest of a window's judgement.
    embeddings_drift.SAMPLE_CONSTANT, embeddings_drift.TSNE = _EMBEDDED_ROWS, PCA
    methods = {KS: "ks", CHI_SQUARE: _label_test()}
    metrics = [
        ValueDrift(column=column.name, method=methods[column.method], threshold=column.threshold)
        for column in columns
        if column.method in methods
    ]
    embedding = next(column for column in columns if column.name == EMBEDDING)
    metrics.append(
        EmbeddingsDrift(embeddings_name=EMBEDDING, drift_method=MMDDriftMethod(threshold=embedding.threshold))
    )
    return Report(metrics).run(current, reference)


@cache
def _label_test() -> str:
    """Make our test of the predicted labels one of Evidently's, and give its name."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: pd.Series[Any], current: pd.Series[Any], _: ColumnType, level: float) -> tuple[float, bool]:
        p_value = permutation.counts(*compare.label_counts(reference, current), level).p_value
        return p_value, p_value <= level

    stat_test = StatTest(CHI_SQUARE, f"{CHI_SQUARE} p_value", [ColumnType.Categorical])
    register_stattest(stat_test, default_impl=test)
    return CHI_SQUARE
