"""A model version against the untouched test split: a Scorecard for old rows and, after feedback, one for new rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cluster.storage import Storage

from .dataset import NEW, OLD, DatasetVersion
from .predictor import Predictor
from .scorecard import Scorecard, score
from .spec import EvaluationSpec
from .split import TEST


def answers(predictor: Predictor, data: DatasetVersion, storage: Storage) -> pd.DataFrame:
    """The test split as the model answers it: `input, true, label, confidence, embedding, slice`."""
    rows = data.rows(storage, TEST)
    outputs = predictor(list(rows["text"]))
    newest = data.part(rows, NEW).index
    return pd.DataFrame(
        {
            "input": rows["text"],
            "true": rows["label"],
            "label": [o.label for o in outputs],
            "confidence": [o.confidence for o in outputs],
            "embedding": [o.embedding.astype(np.float32) for o in outputs],
            "slice": [NEW if index in newest else OLD for index in rows.index],
        }
    )


def scorecards(rows: pd.DataFrame, labels: tuple[str, ...], spec: EvaluationSpec) -> Mapping[str, Scorecard]:
    """A Scorecard for `old` and, where there are such rows, for `new`."""
    return {
        str(name): score(
            list(part["true"]), list(part["label"]), labels, resamples=spec.bootstrap, confidence=spec.confidence
        )
        for name, part in rows.groupby("slice", sort=False)
    }
