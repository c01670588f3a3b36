"""Methods of training that change how a model is asked or held: a prompt in front, weights in 4 bits."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import SpecError, UserError
from cluster.session import connect
from cluster.settings import Settings
from jobs import tasks
from jobs.data import preparation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.plan import plan, show
from jobs.spec import Spec
from jobs.tasks.task import Sampling
from jobs.training import loop, train
from tests.jobs.tasks import projects

TEXTS = ["123 main street", "4 a", "one two three four five six seven eight nine ten"]
PROMPTED = {"method.name": "prompt-tuning", "method.virtual_tokens": 8}


def predictor(net: Any, spec: Spec, labels: tuple[str, ...]) -> Predictor:
    task = tasks.get(spec.task)
    return Predictor(net, task, task.processor(spec.base_model), labels, spec.bounds)


@pytest.mark.parametrize(
    "task", ["multi-label-classification", "token-classification", "text-generation", "text2text-generation"]
)
def test_a_learned_prompt_is_all_that_is_trained_and_answers_alone_as_together(task: str, tmp_path: Path) -> None:
    spec = projects.spec(task, tmp_path / "project", 60).with_values(PROMPTED)
    labels = () if "generation" in task else ("a", "b")
    net = model.trainable(spec, labels)
    head = tasks.get(task).head
    trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert {name for name in trained if not any(part in name for part in head)} == {
        "prompt_encoder.default.embedding.weight"
    }
    model.save(net, None, tmp_path)
    asked = predictor(net, spec, labels)
    together = asked(TEXTS)
    loaded = predictor(model.load(tmp_path, tasks.get(task), spec.base_model, labels, merge=True), spec, labels)
    assert not loaded.compilable
    for given, answer, again in zip(TEXTS, together, loaded(TEXTS), strict=True):
        (alone,) = asked([given])
        assert alone.label == answer.label == again.label
        np.testing.assert_allclose(alone.embedding, answer.embedding, atol=1e-5)
        assert alone.confidence == pytest.approx(answer.confidence, rel=1e-4)
        if task == "text-generation":
            *_, last = asked.write(given, Sampling(spec.training.max_answer))
            assert last.output is not None
            assert last.output.label == answer.label
            np.testing.assert_allclose(last.output.embedding, answer.embedding, atol=1e-5)


def test_what_a_learned_prompt_made_of_a_text_is_explained(spec: Spec) -> None:
    spec = spec.with_values(PROMPTED)
    asked = predictor(model.trainable(spec, ("bad", "good")), spec, ("bad", "good"))
    made = asked.explain("good film", None, 16)
    (answer,) = asked(["good film"])
    assert (made.label, made.score) == (answer.label, pytest.approx(answer.confidence, abs=1e-5))


@pytest.mark.long
def test_a_learned_prompt_learns(place: Place, process_group: None, tmp_path: Path) -> None:
    spec = projects.spec("text2text-generation", tmp_path / "project", 120).with_values(
        PROMPTED | {"training.learning_rate": 0.3, "training.epochs": 4}
    )
    curve: list[dict[str, Any]] = []
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    loop.run(job, rank=0, world=1, threads=1, report=lambda metrics, _: curve.append(metrics))
    assert curve[-1]["validation_loss"] < curve[0]["validation_loss"] - 0.1


def test_a_prompt_needs_positions_and_a_text(spec: Spec) -> None:
    long = spec.with_values(PROMPTED | {"training.max_length": 60})
    with pytest.raises(SpecError, match=r"max_length 60 with 8 virtual tokens: is more than the base model's 64 pos"):
        model.check(long)
    other = {"task": "sentence-similarity"}
    with pytest.raises(
        SpecError, match=r"method\.name prompt-tuning: goes with tasks that read a text and label or wr"
    ):
        model.check(spec.with_values(PROMPTED | other))


def on_gpu(spec: Spec) -> Spec:
    return spec.with_values({"method.name": "qlora", "scaling.use_gpu": True})


def test_a_plan_counts_four_bits_and_prompts(spec: Spec, place: Place) -> None:
    four = plan.make(on_gpu(spec), place.settings)
    (whole,) = (need for need in four.needs if (need.method, need.stage) == ("lora", four.need.stage))
    assert four.need.method == "qlora"
    assert four.need.states.weights < whole.states.weights
    assert "qlora" in show.mend(replace(four, device_bytes=four.need.peak))
    prompts = plan.make(spec.with_values(PROMPTED | {"method.virtual_tokens": 4}), place.settings)
    assert prompts.sizes["prompt-tuning"].trainable < prompts.sizes["lora"].trainable


def test_four_bits_without_their_library_are_refused(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(SpecError, match=r"bitsandbytes is not installed \(pip install 'rehone\[qlora\]'\)"):
        model.check(on_gpu(spec))


def test_no_ray_is_started_for_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with (
        pytest.raises(UserError, match=r"scaling\.use_gpu: a GPU is wanted and this machine has none"),
        connect(Settings(), gpu="scaling.use_gpu"),
    ):
        pass


@pytest.mark.long
def test_four_bits_train_and_are_answered_from_without_a_gpu(place: Place, process_group: None, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    spec = on_gpu(projects.spec("token-classification", tmp_path / "project", 90, training__epochs=2))
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    net = model.trainable(spec, job.labels)
    held = {type(m).__name__ for name, m in net.named_modules() if "attention" in name and name.endswith("base_layer")}
    assert held == {"Linear4bit"}
    heads = {type(m).__name__ for name, m in net.named_modules() if name.endswith("classifier.modules_to_save.default")}
    assert heads == {"Linear"}
    curve: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        if not curve:
            checkpoint.rename(tmp_path / "first")
            checkpoint.mkdir()
        curve.append(metrics)

    loop.run(job, rank=0, world=1, threads=1, report=report)
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    again: list[dict[str, Any]] = []
    loop.run(
        job, rank=0, world=1, threads=1, report=lambda m, _: again.append(m), resume=nullcontext(tmp_path / "first")
    )
    assert [m["train_loss"] for m in again] == pytest.approx([m["train_loss"] for m in curve], rel=1e-5)
    plain, merged = (
        model.load(tmp_path / "first", tasks.get(spec.task), spec.base_model, job.labels, merge=merge)
        for merge in (False, True)
    )
    said = [[answer.confidence for answer in predictor(net, spec, job.labels)(TEXTS)] for net in (plain, merged)]
    assert said[0] == pytest.approx(said[1], rel=1e-4)
