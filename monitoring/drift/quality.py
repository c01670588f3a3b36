"""Evidently's classification quality of the rows whose true label is known, beside the reference's: for its own UI."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

_TRUE, _PREDICTED = "true", "label"
_TWO = 2


def snapshot(reference: pd.DataFrame, measured: pd.DataFrame) -> Snapshot | None:
    """Accuracy, precision, recall, F1 and their dummies of `measured` against `reference`: true, label.

    None where a side has a single label, or only two where there are more: Evidently 0.7.23 fails at these.
    """
    from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.presets import ClassificationQuality
    from sklearn.exceptions import UndefinedMetricWarning

    ours, theirs = ({*rows[_TRUE], *rows[_PREDICTED]} for rows in (measured, reference))
    labels = sorted(ours | theirs)
    two = len(labels) <= _TWO
    if min(len(ours), len(theirs)) < (_TWO if two else _TWO + 1):
        return None
    names = {"target": _TRUE, "prediction_labels": _PREDICTED}
    kind = BinaryClassification(**names, pos_label=labels[-1]) if two else MulticlassClassification(**names)
    known = DataDefinition(categorical_columns=[_TRUE, _PREDICTED], classification=[kind])
    current, before = (
        Dataset.from_pandas(rows[[_TRUE, _PREDICTED]].reset_index(drop=True), data_definition=known)
        for rows in (measured, reference)
    )
    with warnings.catch_warnings():
        # A label that never occurs has no recall: Evidently shows 0.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return Report([ClassificationQuality()]).run(current, before)
