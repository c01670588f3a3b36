"""Training and the sweep on real Ray and DeepSpeed, with a tiny BERT."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import TrainingError
from cluster.session import PROJECT
from cluster.store.storage import Storage
from cluster.store.tracking import Tracker
from jobs import pipeline, specfile, tune
from jobs.data import preparation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep.record import DIVERGED
from jobs.training import batches, train
from jobs.training.loop import Work
from jobs.training.tokens import Rows
from jobs.training.train import Trained
from tests import tiny

pytestmark = pytest.mark.ray


def fit(spec: Spec, place: Place) -> Trained:
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:
        return train.fit(job, place.storage, run)


def source(rows: Rows) -> Any:
    """What they were made of, as a data frame."""
    return Storage(rows.root).read_parquet(rows.source).to_pandas()


def plain_losses(spec: Spec, job: Work) -> list[float]:
    """Training loss of each step as a bare torch loop has it, on one process and the whole global batch."""
    import torch

    net = model.trainable(spec, job.labels)
    index = {label: i for i, label in enumerate(job.labels)}
    texts = source(job.train)
    labels = [index[label] for label in texts["label"]]
    rows = batches.encode(tiny.TASK.processor(spec.base_model), list(texts["input"]), labels, 32)
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
        losses.append(loss.item())
    return losses


def scores(net: Any, job: Work) -> tuple[float, float]:
    """Validation loss and accuracy of a model, computed in one plain pass."""
    import torch

    index = {label: i for i, label in enumerate(job.labels)}
    texts = source(job.validation)
    labels = [index[label] for label in texts["label"]]
    rows = batches.encode(tiny.TASK.processor(job.spec.base_model), list(texts["input"]), labels, 32)
    with torch.no_grad():
        answer = net.eval()(**rows.batch(range(len(rows))))
    return answer.loss.item(), float(np.mean(answer.logits.argmax(-1).numpy() == rows.labels))


@pytest.mark.parametrize(("stage", "method"), [(0, "lora"), (1, "lora"), (2, "lora"), (3, "lora"), (3, "full")])
def test_every_zero_stage_trains_as_a_bare_loop_does(
    ray_session: str, spec: Spec, place: Place, stage: int, method: str
) -> None:
    changes = {
        "training.zero_stage": stage,
        "method.name": method,
        "training.epochs": 1,
        "training.patience": 100,
        "method.dropout": 0,
        "method.rank": 4,
    }
    # Dropout inside BERT draws differently on each worker; without it both loops do the same arithmetic.
    config = Path(spec.base_model) / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps(json.loads(kept) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    try:
        spec = spec.with_values({**changes, "training.evaluations_per_epoch": 7})
        job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
        expected = plain_losses(spec, job)
        trained = fit(spec, place)
    finally:
        config.write_text(kept)
    np.testing.assert_allclose([row["train_loss"] for row in trained.curve], expected, rtol=2e-3, atol=2e-4)
    # What was saved is what was measured, put together from shards or not.
    measured = trained.metrics["validation_loss"], trained.metrics["validation_accuracy"]
    np.testing.assert_allclose(
        scores(model.load(trained.folder, tiny.TASK, spec.base_model, job.labels), job), measured, rtol=1e-4
    )


def test_a_killed_worker_costs_nothing_but_time(ray_session: str, spec: Spec, place: Place, monkeypatch) -> None:
    spec = spec.with_values({"training.epochs": 12, "training.patience": 100, "training.learning_rate": 0.002})
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
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
    assert len(run.history("train_loss")) <= len(steps) + 1  # the last report before, once more, and none before it
    assert trained.curve == fit(spec, place).curve  # to the last bit: what came after is as if nothing had been


def _train_workers() -> list[int]:
    """Processes that Ray named after its train worker, and that these tests started."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # one of another test that has just ended
            if "RayTrainWorker" in process.name() + " ".join(process.cmdline()):
                found.append(process.pid)
    return found


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


def test_training_that_diverges_stops_at_once_and_says_so(ray_session: str, spec: Spec, place: Place) -> None:
    with pytest.raises(TrainingError, match=r"training diverged \(lower training\.learning_rate\)"):
        fit(spec.with_values({"training.learning_rate": 1e30, "training.epochs": 20}), place)
    run = Tracker(place.settings, spec.name).runs()[0]
    assert run["status"] == "FAILED"
    assert run["metrics"]["step"] == 4


def test_a_bug_in_a_worker_ends_in_one_line(ray_session: str, spec: Spec, place: Place, tmp_path: Path) -> None:
    spec = spec.with_values({"training.max_failures": 0})
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    broken = Work(**{**vars(job), "start": str(tmp_path / "nowhere")})
    with (
        pytest.raises(TrainingError, match="training failed") as caught,
        Tracker(place.settings, spec.name).run("train", {}, {}) as run,
    ):
        train.fit(broken, place.storage, run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheduler", ["asha", "halving"])
def test_a_sweep_gives_back_what_it_took(ray_session: str, spec: Spec, place: Place, scheduler: str) -> None:
    """Trials of two workers, more of them at a time than there are CPUs for, of which some are stopped.

    The first rate learns nothing, which is better than what the others do: those that come after it ASHA stops.
    """
    import ray

    search = {"training.learning_rate": {"choice": [1e-6, 0.3, 0.4, 0.5]}}
    changes = {"sweep.algorithm": "grid", "sweep.search": search, "sweep.share": 0.5, "sweep.workers": 2}
    changes |= {"sweep.scheduler": scheduler}
    spec = spec.with_values(changes | {"scaling.cpus_per_worker": 2, "sweep.concurrent": 3})
    before = ray.available_resources()["CPU"]
    best, swept = pipeline.tune_spec(spec, preparation.prepare(spec, place.storage), place)
    assert len(swept.trials) == 4
    assert "stopped" in {t.status for t in swept.trials}
    assert {t.epochs for t in swept.trials if t.status == "finished"} == {spec.sweep.epochs}
    assert all(spec.sweep.grace_epochs <= t.epochs < spec.sweep.epochs for t in swept.trials if t.status == "stopped")
    assert swept.best.status == "finished"
    assert swept.best.validation_loss == min(t.validation_loss for t in swept.trials if t.validation_loss is not None)
    assert pipeline.tuned(spec, place) == swept.best.values
    assert best == spec.with_values(swept.best.values)
    assert _free_again(before) == (before, set())


def _free_again(cpus: float) -> tuple[float, set[str]]:
    """The CPUs that are free, and the placement groups that hold some, as soon as that is all and none."""
    import ray
    from ray.util import placement_group_table

    end = time.monotonic() + 30
    while True:
        free = ray.available_resources().get("CPU", 0)
        held = {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}
        if (free == cpus and not held) or time.monotonic() > end:
            return free, held
        time.sleep(0.2)


SWEEPS = """
import sys
from pathlib import Path
from cluster.session import connect
from cluster.settings import Settings
from jobs import pipeline, specfile

spec, place = specfile.load(Path(sys.argv[1])), pipeline.Place.from_settings(Settings(storage=sys.argv[2]))
with connect(place.settings):
    pipeline.tune_spec(spec, pipeline.prepare(spec, place), place)
"""


def test_a_sweep_that_was_killed_goes_on_where_it_was(
    ray_session: str, spec: Spec, place: Place, tmp_path: Path
) -> None:
    import ray

    search = {"training.learning_rate": {"choice": [0.005, 0.01, 0.02]}}
    sweep = {"sweep.algorithm": "grid", "sweep.scheduler": "none", "sweep.search": search, "sweep.concurrent": 1}
    spec = spec.with_values(sweep)
    before = ray.available_resources()["CPU"]
    file, store = tmp_path / "spec.yaml", Path(place.settings.storage)
    file.write_text(specfile.dump(spec))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": str(PROJECT)}
    killed = subprocess.Popen([sys.executable, "-c", SWEEPS, str(file), str(store)], env=environment)
    end = time.monotonic() + 90
    while not set(store.glob("sweeps/tiny/*/*.json")) and killed.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    done = set(store.glob("sweeps/tiny/*/*.json"))
    assert 1 <= len(done) < 3
    written = {path: path.stat().st_mtime_ns for path in done}
    _, swept = pipeline.tune_spec(spec, preparation.prepare(spec, place.storage), place)
    assert [t.status for t in swept.trials] == ["finished"] * 3
    assert {t.values["training.learning_rate"] for t in swept.trials} == {0.005, 0.01, 0.02}
    assert {path: path.stat().st_mtime_ns for path in done} == written
    assert _free_again(before) == (before, set())
    _, again = pipeline.tune_spec(spec, preparation.prepare(spec, place.storage), place)  # at once: all are known
    assert again.best == swept.best


def test_a_halving_that_was_interrupted_goes_on_from_its_checkpoints(
    ray_session: str, spec: Spec, place: Place, tmp_path: Path
) -> None:
    """Ctrl-C in the last rung, where two trials go on; the third point has diverged."""
    import ray

    search = {"training.learning_rate": {"choice": [0.005, 0.01, 1e30]}}
    sweep = {"sweep.algorithm": "grid", "sweep.scheduler": "halving", "sweep.search": search, "sweep.concurrent": 1}
    spec = spec.with_values(sweep | {"sweep.epochs": 4, "sweep.grace_epochs": 2})
    before = ray.available_resources()["CPU"]
    file, store = tmp_path / "spec.yaml", Path(place.settings.storage)
    file.write_text(specfile.dump(spec))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": str(PROJECT)}
    interrupted = subprocess.Popen(
        [sys.executable, "-c", SWEEPS, str(file), str(store)], env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while not list(store.glob("checkpoints/*-4/_trial*")) and interrupted.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=120)
    assert "2 of 3 trials go on to epoch 4" in said
    assert re.search("interrupted after [01] of 2 trials", said.splitlines()[-1])
    records = {path: json.loads(path.read_text()) for path in store.glob("sweeps/tiny/*/*.json")}
    assert min(record["status"] for record in records.values()) == "failed"
    waiting = {f"{record['id']}-{record['steps']}" for record in records.values() if record["status"] == "stopped"}
    assert waiting
    assert waiting <= {path.name for path in store.glob("sweeps/tiny/*/paused/*")}
    written = {path: path.stat().st_mtime_ns for path in records}
    _, swept = pipeline.tune_spec(spec, preparation.prepare(spec, place.storage), place)
    assert sorted((t.status, t.epochs, t.error) for t in swept.trials)[1:] == [("finished", 4.0, "")] * 2
    (diverged,) = [t for t in swept.trials if t.status == "failed"]
    assert (diverged.error, diverged.values) == (DIVERGED, {"training.learning_rate": 1e30})
    # Seven steps an epoch, a report after every fourth: each of them once, in two stages and three processes.
    reported = [[round(7 * at) for at, _ in t.losses] for t in swept.trials if t.status == "finished"]
    assert reported == [[4, 8, 12, 16, 20, 24, 28]] * 2
    assert sum(path.stat().st_mtime_ns != at for path, at in written.items()) == len(waiting)
    assert list(store.glob("sweeps/tiny/*/paused")) == []
    assert _free_again(before) == (before, set())


def test_a_failed_trial_is_kept_with_its_values_and_its_reason(ray_session: str, spec: Spec, place: Place) -> None:
    search = {
        "method.target_modules": {"choice": [["no_such_module"]]},
        "training.learning_rate": {"choice": [0.01]},
    }
    failing = spec.with_values({"sweep.trials": 1, "sweep.search": search})
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    with Tracker(place.settings, spec.name).run("sweep", {}, {}) as run:
        swept = tune.sweep(Work(**{**vars(job), "spec": failing}), place.storage, run)
    (trial,) = swept.trials
    assert (trial.status, trial.validation_loss) == ("failed", None)
    assert "no module is named no_such_module" in trial.error
    assert trial.values == {"method.target_modules": ["no_such_module"], "training.learning_rate": 0.01}


def test_a_published_version_has_all_its_files_and_learned_something(
    ray_session: str, spec: Spec, place: Place
) -> None:
    dataset = preparation.prepare(spec, place.storage)
    published = pipeline.train_and_publish(spec, dataset, place)
    folder = place.registry.download(published.version)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "adapter",
        "processor",
        "scorecard.json",
        "robustness.json",
        "footprint.json",
        "curve.json",
        "pictures",
        "card.md",
        "card.html",
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
