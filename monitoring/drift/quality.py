"""Evidently's classification quality of the rows whose true label is known, beside the reference's: for its own UI."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

_TRUE, _PREDICTED = "true", "label"


def snapshot(reference: pd.DataFrame, measured: pd.DataFrame) -> Snapshot:
    """Accuracy, precision, recall, F1 and their dummies of `measured` against `reference`: true, label."""
    from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.presets import ClassificationQuality
    from sklearn.exceptions import UndefinedMetricWarning

    labels = sorted({*reference[_TRUE], *reference[_PREDICTED], *measured[_TRUE], *measured[_PREDICTED]})
    names = {"target": _TRUE, "prediction_labels": _PREDICTED}
    two = len(labels) <= 2  # noqa: PLR2004 - Evidently fails on two labels that it takes for many
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
