"""From the spec's source to a dataset version: load, check, clean, split, write. And from feedback to the next one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster.console import say
from cluster.errors import DataError
from cluster.store.storage import Storage
from jobs import tasks
from jobs.spec import Spec
from jobs.training import balance

from . import dataset, intake, near
from .clean import check_labels, clean, describe
from .dataset import DatasetVersion
from .faults import first_ten
from .intake import Intake
from .split import SPLITS, TEST, TRAIN, VALIDATION, assign, divide

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Loaded:
    """`rows` with their `split`, `dropped` with `reason` and `of`, and what came in before."""

    rows: pd.DataFrame
    dropped: pd.DataFrame
    taken: Intake


def check(spec: Spec) -> pd.DataFrame:
    """Load and check the data and write nothing: rows with their `split`. Raises DataError."""
    return load(spec).rows


def prepare(spec: Spec, storage: Storage) -> DatasetVersion:
    """Write the dataset version of this spec. The same data and spec give the same version. Raises DataError."""
    loaded = load(spec)
    for line in (*describe(loaded.dropped), *_doubts(spec, loaded)):
        say(line)
    return write(spec, storage, loaded)


def write(spec: Spec, storage: Storage, loaded: Loaded) -> DatasetVersion:
    """Store what `load` gave for this spec."""
    return dataset.write(
        storage,
        spec.name,
        {name: loaded.rows[loaded.rows["split"] == name] for name in SPLITS},
        loaded.dropped,
        source=spec.data.source,
        task=spec.task,
        targets=tasks.get(spec.task).targets,
        labels=loaded.taken.labels,
        slices=spec.data.slices,
        rules=_rules(spec, loaded.taken.corrections),
    )


def extend(spec: Spec, storage: Storage, old: DatasetVersion, feedback: pd.DataFrame) -> DatasetVersion:
    """Old splits as they are, plus labelled feedback (`input`, `label`) as a new origin with a holdout of its own.

    Feedback that is, or nearly is, an input of the old version is dropped: it would leak between splits. It may be of
    one label only. Raises DataError.
    """
    before = {name: old.rows(storage, name) for name in SPLITS}
    task = tasks.get(spec.task)
    key = task.inputs.key
    rows = intake.masked(feedback[["input", "label"]], spec.data)
    rows = rows.assign(group="", time=None, row=range(1, len(feedback) + 1))
    check_labels(pd.concat([*before.values(), rows]), old.labels, "feedback", task.targets)
    kept, dropped = clean(rows, spec.data.near_duplicates, key, closed=task.targets.CLOSED)
    known = _known(kept, pd.concat(before.values()), spec.data.near_duplicates, key)
    dropped = pd.concat([dropped, kept.assign(reason=known, of=0)[known != ""]])
    kept = kept[known == ""].copy()
    if len(kept) < 10:  # noqa: PLR2004 - fewer cannot be split three ways
        raise DataError(f"{len(kept)} labelled feedback rows are new; at least 10 are needed", where="feedback")
    kept["origin"] = "feedback-" + hashlib.sha256("\n".join(sorted(kept["input"])).encode()).hexdigest()[:8]
    kept["split"] = _split_feedback(kept, spec)
    kept[list(old.slices)] = ""
    return dataset.write(
        storage,
        spec.name,
        {s: pd.concat([before[s], kept[kept["split"] == s]], ignore_index=True) for s in SPLITS},
        dropped,
        source=f"{old.version} + {len(kept)} rows of feedback",
        task=spec.task,
        targets=task.targets,
        labels=list(old.labels),
        slices=old.slices,
        rules=_rules(spec, old.rules["corrections"]) | {"feedback_test_share": spec.retrain.feedback_test_share},
        parent=old,
    )


def load(spec: Spec) -> Loaded:
    """Read, clean and split, and write nothing. Raises DataError."""
    task = tasks.get(spec.task)
    taken = intake.read(spec.data, task)
    kept, dropped = clean(taken.rows, spec.data.near_duplicates, task.inputs.key, closed=task.targets.CLOSED)
    dataset.check_not_empty(kept, dropped, spec.data.source)
    check_labels(kept, spec.data.labels, spec.data.source, task.targets)
    kept["origin"] = "source"
    try:
        split = assign(kept, spec.data.split, spec.training.seed, closed=task.targets.CLOSED)
    except DataError as error:
        raise DataError(error.what, where=error.where or spec.data.source, mend=error.mend) from None
    part = split.isin(SPLITS)
    out = kept[~part].assign(reason=split[~part], of=0)
    return Loaded(
        kept.assign(split=split)[part].reset_index(drop=True),
        pd.concat([some for some in (taken.dropped, dropped, out) if len(some)] or [dropped], ignore_index=True),
        taken,
    )


def _known(
    rows: pd.DataFrame, old: pd.DataFrame, near_duplicates: float | None, key: Callable[[str], str]
) -> pd.Series[str]:
    """Why a row says nothing new beside the old ones, "" where it does."""
    keys, known = rows["input"].map(key), old["input"].map(key)
    why = pd.Series("", index=rows.index)
    if near_duplicates is not None:
        why.iloc[near.repeats(list(keys), near_duplicates, list(known))] = "near the old version"
    return why.mask(keys.isin(set(known)), "in the old version")


def _split_feedback(rows: pd.DataFrame, spec: Spec) -> pd.Series[str]:
    split = pd.Series(TRAIN, index=rows.index)
    for name, share in ((TEST, spec.retrain.feedback_test_share), (VALIDATION, _VALIDATION_SHARE)):
        left = rows["label"][split == TRAIN]
        part, _ = divide(left, math.ceil(len(left) * share), spec.training.seed)
        split[part] = name
    return split


def _doubts(spec: Spec, loaded: Loaded) -> Iterator[str]:
    """What is worth a thought and keeps nobody from training."""
    for kind, rows in loaded.taken.personal.items():
        if rows and spec.data.pii == "keep":
            yield f"{kind.lower()} in {len(rows)} texts (data.pii: mask hides them): row {first_ten(map(str, rows))}"
    closed = tasks.get(spec.task).targets.CLOSED
    rare = balance.rare(loaded.rows["label"]) if closed else {}
    if rare and spec.data.balance == "none":
        yield f"rare labels (see data.balance): {', '.join(f'{label} {share:.1%}' for label, share in rare.items())}"


def _rules(spec: Spec, fixes: str | None) -> dict[str, Any]:
    """What decides the content, apart from where the source lies. `fixes` is the hash of the corrections."""
    rules = spec.data.model_dump(mode="json", exclude={"source", "balance", "packing"})
    return {**rules, "corrections": fixes, "seed": spec.training.seed}
