"""From the spec's source to a dataset version: load, check, clean, split, write. And from feedback to the next one."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pandas as pd

from cluster.errors import DataError
from cluster.storage import Storage

from . import dataset, source
from .clean import check_labels, clean, normalise
from .dataset import DatasetVersion
from .spec import Spec
from .split import SPLITS, TEST, TRAIN, VALIDATION, assign, divide

_VALIDATION_SHARE = 0.1


def check(spec: Spec) -> pd.DataFrame:
    """Load and check the data and write nothing: rows with their `split`. Raises DataError."""
    return _split(spec)[0]


def prepare(spec: Spec, storage: Storage) -> DatasetVersion:
    """Write the dataset version of this spec. The same data and spec give the same version. Raises DataError."""
    kept, dropped, labels = _split(spec)
    return dataset.write(
        storage,
        spec.name,
        {name: kept[kept["split"] == name] for name in SPLITS},
        dropped,
        source=spec.data.source,
        labels=labels,
        slices=spec.data.slices,
        rules=_rules(spec),
    )


def extend(spec: Spec, storage: Storage, old: DatasetVersion, feedback: pd.DataFrame) -> DatasetVersion:
    """Old splits as they are, plus labelled feedback (`text`, `label`) as a new origin with a holdout of its own.

    Feedback that repeats a text of the old version is dropped: it would leak between splits. Raises DataError.
    """
    before = {name: old.rows(storage, name) for name in SPLITS}
    rows = feedback[["text", "label"]].assign(group="", time=None, row=range(1, len(feedback) + 1))
    check_labels(rows, old.labels, "feedback")
    kept, dropped = clean(rows, spec.data.near_duplicates)
    known = {normalise(text) for frame in before.values() for text in frame["text"]}
    seen = kept["text"].map(normalise).isin(known)
    dropped = pd.concat([dropped, kept[seen].assign(reason="in the old version")])
    kept = kept[~seen].copy()
    if len(kept) < 10:  # noqa: PLR2004 - fewer cannot be split three ways
        raise DataError(f"{len(kept)} labelled feedback rows are new; at least 10 are needed", where="feedback")
    kept["origin"] = "feedback-" + hashlib.sha256("\n".join(sorted(kept["text"])).encode()).hexdigest()[:8]
    kept["split"] = _split_feedback(kept, spec)
    kept[list(old.slices)] = ""
    return dataset.write(
        storage,
        spec.name,
        {s: pd.concat([before[s], kept[kept["split"] == s]], ignore_index=True) for s in SPLITS},
        dropped,
        source=f"{old.version} + {len(kept)} rows of feedback",
        labels=list(old.labels),
        slices=old.slices,
        rules=_rules(spec) | {"feedback_test_share": spec.retrain.feedback_test_share},
        parent=old,
    )


def _split(spec: Spec) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    rows = source.load(spec.data)
    labels = check_labels(rows, spec.data.labels, spec.data.source)
    kept, dropped = clean(rows, spec.data.near_duplicates)
    dataset.check_not_empty(kept, dropped, spec.data.source)
    check_labels(kept, spec.data.labels, spec.data.source)
    kept["origin"] = "source"
    try:
        kept["split"] = assign(kept, spec.data.split, spec.training.seed)
    except DataError as error:
        raise DataError(error.what, where=error.where or spec.data.source, mend=error.mend) from None
    return kept, dropped, labels


def _split_feedback(rows: pd.DataFrame, spec: Spec) -> pd.Series[str]:
    split = pd.Series(TRAIN, index=rows.index)
    for name, share in ((TEST, spec.retrain.feedback_test_share), (VALIDATION, _VALIDATION_SHARE)):
        left = rows["label"][split == TRAIN]
        part, _ = divide(left, math.ceil(len(left) * share), spec.training.seed)
        split[part] = name
    return split


def _rules(spec: Spec) -> dict[str, Any]:
    """What in the spec decides the content, apart from where the source lies."""
    return {**spec.data.model_dump(mode="json", exclude={"source"}), "seed": spec.training.seed}
