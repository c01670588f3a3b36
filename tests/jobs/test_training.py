"""Training and the sweep on real Ray and DeepSpeed, with a tiny BERT."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.tracking import Tracker
from jobs import batches, data, model, pipeline, train, tune
from jobs.loop import Work
from jobs.pipeline import Place
from jobs.predictor import Predictor
from jobs.spec import Spec
from jobs.train import Trained

pytestmark = pytest.mark.ray


def fit(spec: Spec, place: Place) -> Trained:
    job = train.work(spec, data.prepare(spec, place.storage), place.storage)
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:
        return train.fit(job, place.storage, run)


def plain_losses(spec: Spec, job: Work) -> list[float]:
    """Training loss of each step as a bare torch loop has it, on one process and the whole global batch."""
    import torch

    net = model.trainable(spec, job.labels)
    index = {label: i for i, label in enumerate(job.labels)}
    labels = [index[label] for label in job.train["label"]]
    rows = batches.encode(model.tokenizer(spec.base_model), list(job.train["text"]), labels, 32)
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=spec.training.learning_rate, weight_decay=spec.training.weight_decay)
    plan = batches.epoch([len(ids) for ids in rows.ids], spec.training.global_batch_size, spec.training.seed)
    warm, total, losses = max(1, round(len(plan) * spec.training.warmup_ratio)), len(plan), []
    net.train()
    for step, batch in enumerate(plan):
        rate = min((step + 1) / warm, (total - step) / max(1, total - warm + 1))
        for group in optimizer.param_groups:
            group["lr"] = spec.training.learning_rate * rate
        loss = net(**rows.batch(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, spec.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_trains_as_a_bare_loop_does(ray_session: str, spec: Spec, place: Place, stage: int) -> None:
    changes = {"training.zero_stage": stage, "training.epochs": 1, "method.dropout": 0, "method.rank": 4}
    # Dropout inside BERT draws differently on each worker; without it both loops do the same arithmetic.
    config = Path(spec.base_model) / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps(json.loads(kept) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    try:
        spec = spec.with_values({**changes, "training.evaluations_per_epoch": 7})
        expected = plain_losses(spec, train.work(spec, data.prepare(spec, place.storage), place.storage))
        trained = fit(spec, place)
    finally:
        config.write_text(kept)
    np.testing.assert_allclose([row["train_loss"] for row in trained.curve], expected, rtol=2e-3, atol=2e-4)


def test_a_killed_worker_costs_nothing_but_time(ray_session: str, spec: Spec, place: Place, monkeypatch) -> None:
    spec = spec.with_values({"training.epochs": 12, "training.patience": 100, "training.learning_rate": 0.002})
    job = train.work(spec, data.prepare(spec, place.storage), place.storage)
    killed = threading.Event()
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:

        def kill_one() -> None:
            while len(train.curve(run)) < 3:
                time.sleep(0.05)
            os.kill(_train_workers()[0], signal.SIGKILL)
            killed.set()

        thread = threading.Thread(target=kill_one, daemon=True)
        thread.start()
        trained = train.fit(job, place.storage, run)
        thread.join()
    assert killed.is_set()
    steps = [row["step"] for row in trained.curve]
    assert steps[-1] == 7 * 12
    assert steps == sorted(set(steps))


def _train_workers() -> list[int]:
    """Processes that Ray named after its train worker, and that this session started."""
    import psutil

    mine = psutil.Process().children(recursive=True)
    return [p.pid for p in mine if "RayTrainWorker" in (p.name() + " ".join(p.cmdline()))]


def test_training_stops_when_validation_turns_and_keeps_the_best(
    ray_session: str, spec: Spec, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"training.epochs": 40, "training.patience": 2, "training.learning_rate": 0.05}
    trained = fit(spec.with_values(changes), place)
    losses = [row["validation_loss"] for row in trained.curve]
    assert trained.curve[-1]["stopped_early"]
    assert len(losses) < 80
    assert losses.index(min(losses)) == len(losses) - 3
    assert trained.metrics["validation_loss"] == pytest.approx(min(losses))
    assert "validation loss turned" in capsys.readouterr().err


def test_a_bug_in_a_worker_ends_in_one_line(ray_session: str, spec: Spec, place: Place, tmp_path: Path) -> None:
    from cluster.errors import TrainingError

    spec = spec.with_values({"training.max_failures": 0})
    job = train.work(spec, data.prepare(spec, place.storage), place.storage)
    broken = Work(**{**vars(job), "start": str(tmp_path / "nowhere")})
    with (
        pytest.raises(TrainingError, match="training failed") as caught,
        Tracker(place.settings, spec.name).run("train", {}, {}) as run,
    ):
        train.fit(broken, place.storage, run)
    assert "\n" not in str(caught.value)


def test_a_sweep_gives_back_what_it_took_and_keeps_a_failed_trial(ray_session: str, spec: Spec, place: Place) -> None:
    import ray

    search = {
        "training.learning_rate": {"loguniform": [1e-3, 3e-2]},
        "method.target_modules": {"choice": ["all-linear"]},
    }
    spec = spec.with_values({"sweep.trials": 3, "sweep.search": search})
    before = ray.available_resources()["CPU"]
    _, swept = pipeline.tune_spec(spec, data.prepare(spec, place.storage), place)
    assert len(swept.trials) == 3
    assert {t.status for t in swept.trials} <= {"finished", "stopped"}
    assert swept.best.validation_loss == min(t.validation_loss for t in swept.trials if t.validation_loss is not None)
    assert pipeline.tuned(spec, place) == swept.best.values

    failing = spec.with_values(
        {"sweep.search": {"method.target_modules": {"choice": [["no_such_module"]]}}, "sweep.trials": 1}
    )
    job = train.work(spec, data.prepare(spec, place.storage), place.storage)
    with Tracker(place.settings, spec.name).run("sweep", {}, {}) as run:
        broken = tune.sweep(Work(**{**vars(job), "spec": failing}), place.storage, run)
    assert broken.trials[0].status == "failed"
    assert "no_such_module" in broken.trials[0].error
    end = time.monotonic() + 30
    while ray.available_resources().get("CPU") != before and time.monotonic() < end:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == before


def test_a_published_version_has_all_its_files_and_learned_something(
    ray_session: str, spec: Spec, place: Place
) -> None:
    dataset = data.prepare(spec, place.storage)
    published = pipeline.train_and_publish(spec.with_values({"training.epochs": 4}), dataset, place)
    folder = place.registry.download(published.version)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "adapter",
        "tokenizer",
        "scorecard.json",
        "reference.parquet",
        "vocabulary.json",
        "golden.json",
    }
    assert published.version.aliases == ("challenger",)
    assert published.version.tags["dataset"] == dataset.version
    card = published.scorecards["old"]
    assert card.rows == dataset.size("test")
    assert card.metrics["accuracy"].value > 0.8
    golden = json.loads((folder / "golden.json").read_text())
    answers = [list(o.scores.values()) for o in Predictor.load(folder)(golden["inputs"])]
    np.testing.assert_allclose(answers, golden["scores"], atol=1e-5)
    assert len(golden["inputs"]) == 8
