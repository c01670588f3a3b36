from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cluster.errors import ClusterError
from jobs import model, pipeline, publish, tasks
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.predictor import Predictor
from jobs.spec import Spec
from monitoring import promotion
from serve import compiled, engine
from tests import tiny, tiny_images

from . import fakes

pytestmark = pytest.mark.long
LABELS = ("negative", "positive")


def published(spec: Spec, place: Place, folder: Path, labels: tuple[str, ...]) -> Path:
    """A version that has learned nothing, with everything that serving needs."""
    task = tasks.get(spec.task)
    model.base(task, spec.base_model, labels, 1).save_pretrained(str(folder / "weights"))
    data = preparation.prepare(spec, place.storage)
    with pipeline.open_run(spec, data, place, "train") as run:
        made = publish.publish(spec, data, folder, curve=(), storage=place.storage, registry=place.registry, run=run)
    return place.registry.download(made.version)


@pytest.fixture
def folder(spec: Spec, place: Place, tmp_path: Path) -> Path:
    return published(spec, place, tmp_path / "kept", LABELS)


@pytest.mark.parametrize("kind", ["onnx", "onnx-int8"])
def test_texts_of_any_length_and_number_are_answered_alike(folder: Path, kind: compiled.Kind) -> None:
    plain, made = Predictor.load(folder), compiled.loader(kind)(folder)
    assert (plain.engine, made.engine) == ("torch", kind)
    texts = [row["input"] for row in tiny.rows(40, seed=5)] + ["good", "so very " * 12]
    for some in (texts, texts[:1], texts[-1:]):
        ours, theirs = plain(some), made(some)
        apart = max(abs(a.scores["positive"] - b.scores["positive"]) for a, b in zip(ours, theirs, strict=True))
        assert apart < {"onnx": 1e-5, "onnx-int8": 0.05}[kind]
        if kind == "onnx":
            np.testing.assert_allclose([o.embedding for o in ours], [o.embedding for o in theirs], atol=1e-5)
    # It goes on to explain, by the network that it was made from.
    assert made.explain("good day", None, 8) == plain.explain("good day", None, 8)
    assert engine.load(fakes.version(1), folder, lambda _: made).predictor is made


def test_images_are_compiled_too(tmp_path: Path, place: Place) -> None:
    spec = tiny_images.spec(tmp_path / "data", tiny_images.base_model(tmp_path / "vit"), 90)
    folder = published(spec, place, tmp_path / "kept", tiny_images.LABELS)
    plain, made = Predictor.load(folder), compiled.loader("onnx")(folder)
    pictures = [given for given, _ in tiny_images.inputs(7)]
    scores = [[list(output.scores.values()) for output in one(pictures)] for one in (plain, made)]
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_auto_takes_one_that_agrees(folder: Path) -> None:
    made = compiled.loader("auto")(folder)
    assert made.engine in {"torch", "onnx", "onnx-int8"}
    assert engine.load(fakes.version(1), folder, lambda _: made).labels == LABELS


def test_eight_bits_are_refused_where_they_cost_accuracy(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    rows = pd.read_parquet(copy / "reference.parquet")
    rows["true"] = rows["label"]
    rows["label"] = rows["true"]
    said = [output.label for output in compiled.loader("onnx")(copy)(list(rows["input"]))]
    other = {"negative": "positive", "positive": "negative"}
    rows.assign(true=[other[label] for label in said], label=[other[label] for label in said]).to_parquet(
        copy / "reference.parquet"
    )
    with pytest.raises(ClusterError, match=r"eight bits cost accuracy: 0\.000, 1\.000 before"):
        compiled.loader("onnx-int8")(copy)
    assert compiled.loader("auto")(copy).engine != "onnx-int8"


def test_one_that_a_replica_would_refuse_is_refused_by_the_gate(spec: Spec, place: Place, folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["scores"][0] = golden["scores"][0][::-1]
    (folder / "golden.json").write_text(json.dumps(golden))
    verdict = promotion.settle(spec, place, place.registry.get("tiny", 1))
    assert not verdict.promote
    assert "away from its trainer" in verdict.reasons[0]
    assert place.registry.find("tiny", "champion") is None
