"""Drift of one window against the reference: Evidently computes and draws, the alarm is calibrated here.

Evidently's defaults flag some column in most windows in which nothing has changed. Here every column is a two-sample
test with a p-value, and the family of them is corrected (Bonferroni), so that a window without drift is flagged with
probability `monitoring.false_alarm_rate` at most. The only file that imports Evidently, and only inside functions: the
import takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.storage import Storage
from jobs import tasks
from jobs.inputs import Inputs, texts
from jobs.spec import Spec

from . import estimate, permutation, reports
from .estimate import Estimate
from .windows import Position, Window

if TYPE_CHECKING:
    from evidently import Dataset
    from evidently.core.report import Snapshot

CONFIDENCE, LABEL, EMBEDDING = "confidence", "predicted label", "embedding"

_KS, _LABEL_TEST, _MMD = "ks", "permutation chi-square", "permutation mmd"
_MOST_ROWS = 1000
"""Rows a side that are tested: the kernel of the embedding test grows with their square."""
_DRAWN_ROWS = 100
"""Rows a side in the picture of the embedding, whose t-SNE costs more than all the tests together."""


@dataclass(frozen=True)
class ColumnDrift:
    """`score` is the p-value, drifted at `threshold` or below; for the embedding it is MMD², drifted above it."""

    name: str
    method: str
    score: float
    p_value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class DriftResult:
    """What one window says. `accuracy` is None without labels, `estimated` is what confidences let expect.

    `report` is an HTML file's path under the storage root.
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
    inputs = tasks.get(spec.task).inputs
    numbers = (*inputs.DESCRIPTORS, CONFIDENCE)
    level = spec.monitoring.false_alarm_rate / (len(numbers) + 2)  # the label and the embedding beside them
    ref, cur = (_frame(_sample(rows), inputs, vocabulary) for rows in (reference, window.rows))
    embedding = permutation.mmd(_embedding(ref), _embedding(cur), level)
    snapshot = _run(_dataset(cur, inputs), _dataset(ref, inputs), numbers, level, embedding.threshold)
    columns = (*_with_p_values(snapshot, numbers, level), _embedding_column(embedding, level))
    measured = window.measured
    return DriftResult(
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
        estimated=_estimated(reference, window.rows, spec.monitoring.false_alarm_rate),
        report=reports.keep(storage, window.model, window.key, snapshot),
    )


def _accuracy(rows: pd.DataFrame) -> float:
    return float((rows["true"] == rows["label"]).mean())


def _estimated(reference: pd.DataFrame, rows: pd.DataFrame, level: float) -> Estimate:
    ref = _sample(reference)
    right = (ref["true"] == ref["label"]).to_numpy()
    return estimate.accuracy(
        ref["confidence"].to_numpy(float), right, _sample(rows)["confidence"].to_numpy(float), level
    )


def _sample(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if len(rows) <= _MOST_ROWS else rows.sample(_MOST_ROWS, random_state=0)


def _frame(rows: pd.DataFrame, inputs: Inputs, vocabulary: Sequence[str]) -> pd.DataFrame:
    """One column a number, as Evidently takes it, and the text where there is one."""
    matrix = np.stack(list(rows["embedding"]))
    known = inputs.describe(list(rows["input"]), vocabulary)
    known[CONFIDENCE], known[LABEL] = rows["confidence"].to_numpy(), rows["label"].to_numpy()
    if inputs.NAME == texts.NAME:
        # Evidently's non-letter share divides by the length.
        known["input"] = rows["input"].where(rows["input"] != "", " ").to_numpy()
    return pd.concat([known, pd.DataFrame(matrix, columns=[f"embedding_{i}" for i in range(matrix.shape[1])])], axis=1)


def _names(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if name.startswith("embedding_")]


def _embedding(frame: pd.DataFrame) -> NDArray[np.float64]:
    return frame[_names(frame)].to_numpy(np.float64)


def _dataset(frame: pd.DataFrame, inputs: Inputs) -> Dataset:
    from evidently import DataDefinition, Dataset
    from evidently.descriptors import NonLetterCharacterPercentage, TextLength

    own = [TextLength("input", alias=texts.LENGTH), NonLetterCharacterPercentage("input", alias=texts.NON_LETTER)]
    written = inputs.NAME == texts.NAME
    return Dataset.from_pandas(
        frame,
        data_definition=DataDefinition(
            text_columns=["input"] if written else [],
            categorical_columns=[LABEL],
            numerical_columns=[name for name in (*inputs.DESCRIPTORS, CONFIDENCE) if name in frame],
            embeddings={EMBEDDING: _names(frame)},
        ),
        descriptors=own if written else [],
    )


def _run(
    current: Dataset, reference: Dataset, numbers: Sequence[str], level: float, embedding_threshold: float
) -> Snapshot:
    from evidently import Report
    from evidently.legacy.metrics.data_drift import embeddings_drift
    from evidently.metrics import ValueDrift
    from evidently.metrics.embeddings import EmbeddingsDrift, MMDDriftMethod

    embeddings_drift.SAMPLE_CONSTANT = _DRAWN_ROWS  # Evidently has no argument for it
    metrics = [ValueDrift(column=name, method=_KS, threshold=level) for name in numbers]
    metrics.append(ValueDrift(column=LABEL, method=_label_test(), threshold=level))
    metrics.append(
        EmbeddingsDrift(embeddings_name=EMBEDDING, drift_method=MMDDriftMethod(threshold=embedding_threshold))
    )
    return Report(metrics).run(current, reference)


@cache
def _label_test() -> str:
    """Make our test of the predicted labels one of Evidently's, and give its name."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: pd.Series[Any], current: pd.Series[Any], _: ColumnType, level: float) -> tuple[float, bool]:
        labels = sorted({*reference, *current})
        ref, cur = ([int((side == label).sum()) for label in labels] for side in (reference, current))
        p_value = permutation.counts(ref, cur, level).p_value
        return p_value, p_value <= level

    stat_test = StatTest(_LABEL_TEST, "permutation chi-square p_value", [ColumnType.Categorical])
    register_stattest(stat_test, default_impl=test)
    return _LABEL_TEST


def _with_p_values(snapshot: Snapshot, numbers: Sequence[str], level: float) -> list[ColumnDrift]:
    p_values = [float(metric["value"]) for metric in snapshot.dict()["metrics"][: len(numbers) + 1]]
    return [
        ColumnDrift(name, _LABEL_TEST if name == LABEL else _KS, p, p, level, p <= level)
        for name, p in zip((*numbers, LABEL), p_values, strict=True)
    ]


def _embedding_column(tested: permutation.Tested, level: float) -> ColumnDrift:
    drifted = tested.p_value <= level
    return ColumnDrift(EMBEDDING, _MMD, tested.score, tested.p_value, tested.threshold, drifted)
