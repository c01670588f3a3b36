"""The anchor: rows that a retraining must not forget, and what a model scores on them.

Without a file in the spec they are the old test rows of the dataset version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from cluster.console import say
from cluster.errors import DataError
from cluster.store.storage import Storage
from jobs import tasks
from jobs.data import source
from jobs.data.clean import check_labels
from jobs.data.dataset import NEW, OLD, DatasetVersion
from jobs.data.split import TEST, TRAIN
from jobs.evaluation.evaluate import score_of
from jobs.spec import DataSpec, Spec

from .forgetting import Measured

if TYPE_CHECKING:  # torch, which `rehone check` does without
    from jobs.models.predictor import Predictor

_OLD_TEST = "the old test rows"


@dataclass(frozen=True)
class Anchor:
    """`rows` and `new`, the test rows of the new kind (perhaps none), both with `input` and `label`."""

    name: str
    rows: pd.DataFrame
    new: pd.DataFrame


def check(spec: Spec) -> None:
    """Raises DataError when the spec names an anchor file that cannot be used."""
    if spec.evaluation.anchor is not None:
        _read(spec, spec.data.labels)


def load(spec: Spec, data: DatasetVersion, storage: Storage) -> Anchor:
    """The anchor of a dataset version; rows of a file that are training rows too are left out. Raises DataError."""
    test = data.rows(storage, TEST)
    new = data.part(test, NEW)
    if spec.evaluation.anchor is None:
        return Anchor(_OLD_TEST, data.part(test, OLD), new)
    rows = _unseen(_read(spec, data.labels), data.rows(storage, TRAIN), spec)
    return Anchor(spec.evaluation.anchor, rows, new)


def measure(predictor: Predictor, anchor: Anchor, labels: tuple[str, ...], spec: Spec) -> Measured:
    """The spec's metric of a model on the anchor and on the new test rows."""
    new = _value(predictor, anchor.new, labels, spec) if len(anchor.new) else None
    return Measured(_value(predictor, anchor.rows, labels, spec), new)


def _value(predictor: Predictor, rows: pd.DataFrame, labels: tuple[str, ...], spec: Spec) -> float:
    predicted = [output.label for output in predictor(list(rows["input"]))]
    targets, once = tasks.get(spec.task).targets, spec.evaluation.model_copy(update={"bootstrap": 1})
    return score_of(list(rows["label"]), predicted, labels, targets, once).metrics[spec.evaluation.metric].value


def _read(spec: Spec, labels: tuple[str, ...] | None) -> pd.DataFrame:
    assert spec.evaluation.anchor is not None
    where = {"source": spec.evaluation.anchor, "input": spec.data.input, "label": spec.data.label}
    task = tasks.get(spec.task)
    try:
        rows = source.load(DataSpec.model_validate(where), task)
        check_labels(rows, labels, spec.evaluation.anchor, task.targets)
    except DataError as error:  # which speaks of data.source
        raise DataError(error.what, where=f"evaluation.anchor {spec.evaluation.anchor}", mend=error.mend) from None
    return rows[(rows["input"] != "") & (rows["label"] != "")]


def _unseen(rows: pd.DataFrame, train: pd.DataFrame, spec: Spec) -> pd.DataFrame:
    """Without the rows that the model trains on: those it cannot forget."""
    key = tasks.get(spec.task).inputs.key
    keys, known = rows["input"].map(key), train["input"].map(key)
    seen = keys.isin(set(known))
    left = rows[~seen]
    if seen.any():
        say(f"anchor {spec.evaluation.anchor}: {int(seen.sum())} of {len(rows)} rows are trained on and left out")
    if left.empty:
        raise DataError("every row of it is a training row", where=f"evaluation.anchor {spec.evaluation.anchor}")
    return left
