from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.models.predictor import Predictor
from serve.engines import compiled, engine
from tests import tiny, tiny_images

from . import fakes
from .conftest import Kept, teach

pytestmark = pytest.mark.long


def scores(predictor: Predictor, inputs: list[str]) -> np.ndarray:
    return np.array([list(output.scores.values()) for output in predictor(inputs)])


@pytest.fixture
def whole(taught: Kept, tmp_path: Path) -> Path:
    plain = Predictor.load(taught.folder)
    return compiled.exported(plain, [row["input"] for row in tiny.rows(3, seed=1)], tmp_path / "model.onnx")


def test_texts_of_any_length_and_number_are_answered_alike(taught: Kept, whole: Path) -> None:
    plain = Predictor.load(taught.folder)
    made = compiled.session(plain, whole, "onnx")
    texts = [row["input"] for row in tiny.rows(40, seed=5)] + ["good", "so very " * 12]
    assert np.ptp(scores(plain, texts)[:, 0]) > 0.5  # answers that differ can be told apart
    for some in (texts, texts[:1], texts[-1:]):
        np.testing.assert_allclose(scores(made, some), scores(plain, some), atol=1e-5)
        ours, theirs = ([output.embedding for output in one(some)] for one in (plain, made))
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    # It goes on to explain, by the network that it was made from.
    assert made.explain("good day", None, 8) == plain.explain("good day", None, 8)
    assert engine.load(fakes.version(1), taught.folder, lambda _: made).predictor is made


def test_openvino_answers_nearly_alike_and_in_any_order_of_lengths(taught: Kept, whole: Path) -> None:
    plain = Predictor.load(taught.folder)
    made = compiled.openvino(plain, whole, "openvino")
    texts = [row["input"] for row in tiny.rows(40, seed=5)] + ["good", "so very " * 12]
    kept = made(texts[:1])
    for some in (texts, texts[:1], texts[-1:], texts[:1], texts):
        np.testing.assert_allclose(scores(made, some), scores(plain, some), atol=0.02)
        for ours, theirs in zip(plain(some), made(some), strict=True):
            np.testing.assert_allclose(theirs.embedding, ours.embedding, atol=0.05)
    # What it gave is not written over by what it is asked next.
    np.testing.assert_array_equal(kept[0].embedding, made(texts[:1])[0].embedding)
    assert made.explain("good day", None, 8) == plain.explain("good day", None, 8)
    assert engine.load(fakes.version(1), taught.folder, lambda _: made).predictor is made


def test_eight_bits_are_other_weights_and_nearly_the_same_answers(
    taught: Kept, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Predictor.load(taught.folder)
    made = compiled.session(plain, compiled.quantised(whole, whole.with_name("int8.onnx")), "onnx-int8")
    texts = [row["input"] for row in tiny.rows(40, seed=5)]
    apart = np.abs(scores(made, texts) - scores(plain, texts)).max()
    assert 1e-6 < apart < 0.05
    assert caplog.messages == []
    logging.getLogger().warning("what is said afterwards")
    assert caplog.messages == ["what is said afterwards"]


def test_images_are_compiled_too(tmp_path: Path) -> None:
    spec = tiny_images.spec(tmp_path / "data", tiny_images.base_model(tmp_path / "vit"), 3)
    rows = pd.DataFrame(tiny_images.inputs(48), columns=["input", "label"])
    net, processor = teach(spec, rows, tiny_images.LABELS, 12), tiny_images.TASK.processor(spec.base_model)
    plain = Predictor(net, tiny_images.TASK, processor, tiny_images.LABELS, spec.bounds)
    pictures = list(rows["input"])
    made = compiled.session(plain, compiled.exported(plain, pictures[:3], tmp_path / "model.onnx"), "onnx")
    assert np.ptp(scores(plain, pictures)[:, 0]) > 0.1
    for some in (pictures, pictures[:1]):
        np.testing.assert_allclose(scores(made, some), scores(plain, some), atol=1e-5)
    quick = compiled.openvino(plain, tmp_path / "model.onnx", "openvino")
    np.testing.assert_allclose(scores(quick, pictures), scores(plain, pictures), atol=0.02)
