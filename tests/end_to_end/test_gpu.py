"""On a GPU, where there is one: fp16, trials that share it, and replicas that have a share of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
import torch

from cluster.session import connect
from cluster.settings import Settings
from jobs import pipeline
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import promotion
from serve import rollout
from tests import tiny

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.timeout(600),
]

ON_GPU = {"scaling.use_gpu": True, "scaling.workers": 1, "scaling.gpus_per_worker": 0.5}
TEXTS = [row["input"] for row in tiny.rows(40, seed=7)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.from_settings(Settings(storage=str(tmp_path_factory.mktemp("gpu") / "store")))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Spec:
    return tiny.spec(tmp_path_factory.mktemp("project"), base_model).with_values(ON_GPU)


@pytest.fixture(scope="module", autouse=True)
def _cluster(place: Place) -> Iterator[None]:
    with connect(place.settings, num_cpus=8, gpu="scaling.use_gpu"):
        yield


def free() -> float:
    return float(ray.available_resources().get("GPU", 0.0))


def test_what_is_trained_in_fp16_is_served_from_a_share_of_a_gpu(spec: Spec, place: Place) -> None:
    whole = ray.cluster_resources()["GPU"]
    half = spec.with_values({"training.precision": "fp16", "serving.gpus": 0.25})
    published = pipeline.train_and_publish(half, pipeline.prepare(half, place), place)
    assert published.evaluation.scorecards["old"].metrics["accuracy"].value > 0.8
    assert promotion.settle(half, place, published.version).promote
    url = rollout.start(half, place.settings)
    try:
        assert free() == whole - 0.25
        on_gpu = scores(url)
        # Another spec for the same server: without a GPU it takes none, though the machine has one.
        assert rollout.start(half.with_values({"serving.gpus": 0.0}), place.settings) == url
        assert free() == whole
        np.testing.assert_allclose(scores(url), on_gpu, atol=1e-3)
    finally:
        rollout.stop()


def scores(url: str) -> list[float]:
    answer = httpx.post(f"{url}/v1/models/tiny/predict", json={"inputs": TEXTS}, timeout=60).raise_for_status()
    return [one["confidence"] for one in answer.json()["predictions"]]


def test_trials_of_a_sweep_share_a_gpu_and_give_it_back(spec: Spec, place: Place) -> None:
    sweep = {"sweep.trials": 4, "sweep.epochs": 4, "sweep.reduction_factor": 2, "sweep.concurrent": 2}
    searching = spec.with_values(sweep)
    before = free()
    _, swept = pipeline.tune_spec(searching, pipeline.prepare(searching, place), place)
    assert len(swept.trials) == 4
    assert [trial.error for trial in swept.trials] == [""] * 4
    assert swept.best.validation_loss < swept.best.losses[0][1]
    assert free() == before
