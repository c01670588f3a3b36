from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import SpecError
from jobs.data import preparation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import MethodSpec, Spec
from jobs.tasks.task import Bounds
from jobs.training import train
from tests import tiny

LABELS = ("negative", "positive")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("package:no_such_package/model", "package 'no_such_package' is not installed (pip install it)"),
        ("package:transformers/no_folder", "package 'transformers' has no folder 'no_folder'"),
        ("/no/such/folder", "no such folder"),
    ],
)
def test_a_base_model_that_is_not_there_gets_one_line(name: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        model.locate(name)
    assert said in str(caught.value)


def test_a_folder_without_a_model_is_said(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be loaded") as caught:
        model.check(spec.with_values({"base_model": str(tmp_path)}))
    assert "\n" not in str(caught.value)


def test_a_model_of_another_kind_than_the_task_is_refused(spec: Spec) -> None:
    with pytest.raises(SpecError, match="a bert model is none for image-classification"):
        model.check(spec.with_values({"task": "image-classification"}))


def test_a_module_that_does_not_exist_is_said(base_model: Path) -> None:
    net = model.base(tiny.TASK, str(base_model), LABELS, 0)
    with pytest.raises(SpecError, match=r"method\.target_modules"):
        model.with_adapter(net, MethodSpec(target_modules=("no_such_module",)), tiny.TASK)


def test_a_text_longer_than_the_model_is_refused_before_anything_is_loaded(spec: Spec, place: Place) -> None:
    made = preparation.prepare(spec, place.storage)
    assert train.stage(spec.with_values({"training.max_length": 64}), made).stage == 0
    with pytest.raises(SpecError, match=r"training\.max_length 65: is more than the base model's 64 positions"):
        train.stage(spec.with_values({"training.max_length": 65}), made)


def test_lora_trains_a_small_share_and_full_trains_all(spec: Spec) -> None:
    some, all_ = model.trainable_share(model.trainable(spec, LABELS))
    full = model.trainable_share(model.trainable(spec.with_values({"method.name": "full"}), LABELS))
    assert 0 < some < all_
    assert full[0] == full[1]


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "ia3", "full"])
def test_a_saved_model_answers_as_it_did(spec: Spec, tmp_path: Path, method: str) -> None:
    import torch

    spec = spec.with_values({"method.name": method})
    net = model.trainable(spec, LABELS)
    with torch.no_grad():
        for weights in net.parameters():
            if weights.requires_grad:
                weights.add_(0.05 * torch.randn_like(weights, generator=None))
    model.save(net, None, tmp_path)
    texts = [row["input"] for row in tiny.rows(40, seed=3)]
    tokenizer = tiny.TASK.processor(spec.base_model)
    kept = [net, *(model.load(tmp_path, tiny.TASK, spec.base_model, LABELS, merge=merge) for merge in (False, True))]
    predictors = [Predictor(each, tiny.TASK, tokenizer, LABELS, Bounds(32, 1)) for each in kept]
    scores = [[output.scores["positive"] for output in predictor(texts)] for predictor in predictors]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    np.testing.assert_allclose(scores[0], scores[2], atol=1e-5)


def test_batched_answers_are_those_of_one_at_a_time(spec: Spec) -> None:
    predictor = Predictor(
        model.base(tiny.TASK, spec.base_model, LABELS, 0),
        tiny.TASK,
        tiny.TASK.processor(spec.base_model),
        LABELS,
        Bounds(32, 1),
        4,
    )
    texts = [row["input"] for row in tiny.rows(11, seed=5)]
    together, alone = predictor(texts), [predictor([text])[0] for text in texts]
    for a, b in zip(together, alone, strict=True):
        assert a.label == b.label
        np.testing.assert_allclose(a.embedding, b.embedding, atol=1e-5)
        assert a.confidence == pytest.approx(b.confidence, abs=1e-5)
        assert a.embedding.shape == (32,)


def test_nothing_is_built_while_an_adapter_is_put_on_in_another_thread(tmp_path: Path) -> None:
    """PEFT puts it on with `register_parameter` of all modules patched."""
    (tmp_path / "weights").mkdir()
    begun, let, built = threading.Event(), threading.Event(), threading.Event()

    class Net:
        def parameters(self) -> Iterator[torch.Tensor]:
            yield torch.zeros(1)

        def load_adapter(self, *_: object, **__: object) -> None:
            begun.set()
            assert let.wait(30)

    def from_pretrained(folder: Path) -> Path:
        built.set()
        return folder

    task: Any = SimpleNamespace(auto=lambda: SimpleNamespace(from_pretrained=from_pretrained))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(model.add_adapter, Net(), tmp_path, "one")
        assert begun.wait(30)
        second = threads.submit(model.load, tmp_path, task, "base", ())
        assert not built.wait(0.2)
        let.set()
        first.result()
        assert second.result() == tmp_path / "weights"
