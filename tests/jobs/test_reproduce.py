"""A version trained again: the figures' arithmetic, and on real Ray that nothing differs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cluster.errors import DataError
from cluster.store.registry import ModelVersion
from cluster.store.tracking import Tracker
from jobs import pipeline
from jobs.data import preparation
from jobs.models import reproduce
from jobs.models.reproduce import Figure, Reproduction
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny


def test_figures_are_matched_by_name_and_a_missing_one_is_never_alike() -> None:
    then = {"old": {"metrics": {"accuracy": {"value": 0.5}}, "rows": 4, "labels": ["a"], "confusion": [[1, 2]]}}
    now = {"old": {"metrics": {"accuracy": {"value": 0.75}}, "confusion": [[1, 2]], "extra": 1.0}}
    found = {f.name: f for f in reproduce.figures(then, now)}
    assert found["old.metrics.accuracy.value"].difference == 0.25
    assert found["old.confusion.0.1"].difference == 0
    assert found["old.rows"].difference == math.inf
    assert found["old.extra"].difference == math.inf
    assert "old.labels.0" not in found


def test_what_is_no_number_on_both_sides_is_alike() -> None:
    assert Figure("auc", math.nan, math.nan).difference == 0
    assert Figure("auc", math.inf, math.inf).difference == 0


@pytest.mark.parametrize(("scores", "tolerance", "holds"), [(0.0, 0.0, True), (0.01, 0.0, False), (0.01, 0.02, True)])
def test_it_is_reproduced_within_the_tolerance(scores: float, tolerance: float, holds: bool) -> None:
    made = Reproduction("tiny", 1, "run", (Figure("train.loss", 0.5, 0.5),), scores, 0.1, ("torch 1 -> 2",), tolerance)
    assert made.reproduced is holds
    said = reproduce.shown(made)
    assert "torch 1 -> 2" in said
    assert said.splitlines()[-1].startswith("reproduced" if holds else "not reproduced")
    assert made.to_dict()["figures"]["train.loss"] == {"then": 0.5, "now": 0.5, "difference": 0.0}


@pytest.mark.ray
def test_a_version_and_its_retraining_come_out_to_the_last_bit(ray_session: str, spec: Spec, place: Place) -> None:
    # Old words come to mean the opposite and only new rows are trained on: what is published is a blend.
    changes = {"method.dropout": 0.2, "evaluation.max_loss_on_old": 0.05, "retrain.replay": 0, "retrain.blend": 0.1}
    spec = spec.with_values({**changes, "retrain.remedies": ["blend"]})
    dataset = preparation.prepare(spec, place.storage)
    first = pipeline.train_and_publish(spec, dataset, place).version
    opposite = {"positive": "negative", "negative": "positive"}
    feedback = pd.DataFrame([{**row, "label": opposite[row["label"]]} for row in tiny.rows(90, seed=4)])
    extended = preparation.extend(spec, place.storage, dataset, feedback)
    start = place.registry.download(first)
    retrained = pipeline.train_and_publish(spec, extended, place, start=start, parent=first)
    second, forgotten = retrained.version, retrained.forgetting
    assert forgotten is not None
    assert forgotten.attempts[forgotten.published].recipe.blend == 0.1
    for version in (first, second):
        made = reproduce.reproduce(reproduce.origin(place, version), version, place)
        assert (made.largest, made.weights) == (0, 0)
        assert [cause for cause in made.causes if "no commit" not in cause] == []
        assert {f.name for f in made.figures} >= {"old.metrics.accuracy.value", "train.loss", "train.validation_loss"}
        run = Tracker(place.settings, spec.name).runs()[0]
        assert (run["id"], run["tags"]["kind"]) == (made.run, "reproduce")
    assert [v.version for v in place.registry.versions(spec.name)] == [1, 2]


def test_arrays_of_the_same_shapes_are_compared_and_others_differ_without_end() -> None:
    one, other = {"a": np.zeros(2), "b": np.ones((1, 2))}, {"a": np.array([0, 0.25]), "b": np.ones((1, 2))}
    assert reproduce._largest(one, one) == 0
    assert reproduce._largest(one, other) == 0.25
    assert reproduce._largest(one, {"a": np.zeros(2)}) == math.inf
    assert reproduce._largest(one, {**one, "b": np.ones((1, 3))}) == math.inf


def test_a_version_whose_dataset_has_changed_cannot_be_reproduced(spec: Spec, place: Place, tmp_path: Path) -> None:
    dataset = preparation.prepare(spec, place.storage)
    tree = {
        "spec": spec.model_dump(mode="json"),
        "parent": None,
        "dataset": {"name": "tiny", "version": dataset.version},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    version = ModelVersion("tiny", 1, "", "", {}, (), 0.0)
    here = SimpleNamespace(storage=place.storage, registry=SimpleNamespace(download=lambda _: tmp_path))
    assert reproduce.origin(here, version).data == dataset
    rows = place.storage.read_parquet(f"{dataset.place}/train.parquet")
    place.storage.write_parquet(f"{dataset.place}/train.parquet", rows.slice(1))
    with pytest.raises(DataError, match="is not what it was"):
        reproduce.origin(here, version)
