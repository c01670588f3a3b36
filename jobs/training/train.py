"""One training run on Ray Train: workers, checkpoints in the storage root, metrics and the learning curve in MLflow."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.console import Meter, draw, meter, say
from cluster.errors import SpecError, TrainingError
from cluster.store.storage import Storage
from cluster.store.tracking import Run
from jobs.data.dataset import NEW, OLD, DatasetVersion
from jobs.data.split import TRAIN, VALIDATION
from jobs.forgetting.ewc import Consolidation
from jobs.forgetting.forgetting import EWC, Recipe
from jobs.plan import shapes
from jobs.spec import Spec

from . import balance, loop, tokens, zero
from . import curve as curve_
from .loop import Work
from .notices import Notices
from .tokens import Rows

CURVE = ("train_loss", "validation_loss", "validation_accuracy", "learning_rate", "gradient_norm", "stopped_early")


@dataclass(frozen=True)
class Trained:
    """The best checkpoint's folder and what was measured on the way to it. `curve` rows are the reports in order."""

    folder: Path
    metrics: dict[str, Any]
    curve: tuple[dict[str, float], ...]
    seconds: float


def work(
    spec: Spec,
    data: DatasetVersion,
    storage: Storage,
    start: Path | None = None,
    recipe: Recipe | None = None,
) -> Work:
    """Everything a worker needs; picks the ZeRO stage and says why. `recipe` says how to go on from `start`.

    Raises SpecError when the recipe asks for elastic weight consolidation and the stage is 3.
    """
    picked = stage(spec, data)
    say(f"ZeRO stage {picked.stage}: {picked.reason}")
    rows, validation = data.rows(storage, TRAIN), data.rows(storage, VALIDATION)
    # Made before workers start, and found by every later training on them, whichever of the rows that takes.
    frames = {data.file(TRAIN): rows, data.file(VALIDATION): validation}
    kept, validating = tokens.kept(storage, frames, spec, data.labels)
    consolidation = None
    if recipe is not None:
        old = data.part(rows, OLD)
        consolidation = _consolidation(spec, recipe, old, kept, picked.stage)
        rows = pd.concat([_replayed(old, recipe.replay, spec.training.seed), data.part(rows, NEW)])
    weights = None if spec.data.balance == "none" else balance.class_weights(rows["label"], data.labels)
    if spec.data.balance == "oversample":
        rows = balance.oversample(rows, spec.training.seed)
    return Work(
        spec=spec,
        labels=data.labels,
        train=kept.only(rows.index),
        validation=validating,
        zero_stage=picked.stage,
        epochs=spec.training.epochs,
        start=str(start) if start else None,
        consolidation=consolidation,
        class_weights=weights,
    )


def _replayed(old: pd.DataFrame, times: float, seed: int) -> pd.DataFrame:
    """A share of the rows, or whole times all of them and a share of them once more."""
    whole, share = divmod(times, 1)
    return pd.concat([*[old] * int(whole), old.sample(frac=share, random_state=seed)])


def _consolidation(spec: Spec, recipe: Recipe, old: pd.DataFrame, kept: Rows, stage: int) -> Consolidation | None:
    if not recipe.ewc_lambda:
        return None
    check_remedies(spec, stage)
    rows = old.sample(min(len(old), spec.retrain.ewc_rows), random_state=spec.training.seed)
    return Consolidation(recipe.ewc_lambda, kept.only(rows.index))


def check_remedies(spec: Spec, stage: int) -> None:
    """Raises SpecError when elastic weight consolidation is among the remedies and the ZeRO stage is 3."""
    if EWC in spec.retrain.remedies and stage == 3:  # noqa: PLR2004 - the ZeRO stage that shards weights
        raise SpecError(
            "elastic weight consolidation needs whole weights, which ZeRO stage 3 shards",
            where="retrain.remedies",
            mend="retrain.remedies: [replay], or training.zero_stage 0 to 2",
        )


def stage(spec: Spec, data: DatasetVersion) -> zero.Plan:
    """The ZeRO plan, from the model's own shapes on the meta device: nothing is loaded.

    Raises SpecError when the model has fewer positions than `training.max_length`.
    """
    sizes = shapes.sizes(shapes.on_meta(spec, data.labels))
    return zero.plan(
        spec,
        parameters=sizes.parameters,
        trainable=sizes.trainable,
        device_bytes=shapes.device_bytes(spec),
        quantised=sizes.quantisable if spec.method.name == "qlora" else 0,
    )


def fit(job: Work, storage: Storage, run: Run, label: str = "train") -> Trained:
    """Train to the end on Ray Train, from the run's last checkpoint when it has one. Ray must be connected.

    Raises TrainingError, which says what was saved.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    spec = job.spec
    trainer = TorchTrainer(
        worker,
        train_loop_config={"work": job},
        torch_config=TorchConfig(backend="nccl" if spec.scaling.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=spec.scaling.workers,
            elastic_resize_monitor_interval_s=spec.scaling.resize_seconds,
            use_gpu=spec.scaling.use_gpu,
            resources_per_worker=spec.scaling.bundle,
        ),
        run_config=RunConfig(
            name=run.id,
            storage_path=storage.url("checkpoints"),
            failure_config=FailureConfig(max_failures=spec.training.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="validation_loss", checkpoint_score_order="min"
            ),
            callbacks=[_logger(run)],
        ),
    )
    began = time.monotonic()
    try:
        with _progress(run, label, _steps(job)):
            result = trainer.fit()
    except TrainingFailedError as error:
        saved = storage.url("checkpoints", run.id)
        raise TrainingError(
            f"training failed: {_cause(error)}", where=f"run {run.id}", mend=f"the same again goes on from {saved}"
        ) from error
    usable = [pair for pair in result.best_checkpoints if math.isfinite(pair[1]["validation_loss"])]
    if not usable:
        raise TrainingError("training diverged", where=f"run {run.id}", mend="lower training.learning_rate")
    checkpoint, metrics = min(usable, key=lambda pair: pair[1]["validation_loss"])
    folder = _local(checkpoint)
    reports = curve(run)
    draw(curve_.lines(reports))
    say(curve_.told(reports))
    return Trained(folder, metrics, tuple(reports), time.monotonic() - began)


def _local(checkpoint: Any) -> Path:
    """Where a checkpoint lies, or a copy of one that is on no disk here, which goes when this process ends."""
    from pyarrow.fs import LocalFileSystem

    if isinstance(checkpoint.filesystem, LocalFileSystem):
        return Path(checkpoint.path)
    folder = tempfile.mkdtemp(prefix="rehone-checkpoint-")  # Ray's own would stay for ever
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(checkpoint.to_directory(folder))


def worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker process."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    job: Work = config["work"]
    context, held = ray.train.get_context(), ray.train.get_checkpoint()

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        kept = ray.train.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        ray.train.report(metrics, checkpoint=kept)

    loop.run(
        job,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        threads=job.spec.scaling.cpus_per_worker,
        report=report,
        resume=held.as_directory() if held else None,
        noticed=Notices(ray.train.get_preemption_info, broadcast_from_rank_zero),
    )


def _steps(job: Work) -> int:
    return -(-len(job.train) // job.spec.training.global_batch_size) * job.epochs


def _logger(run: Run) -> Any:
    """Logs each report to MLflow as it comes, from Ray Train's controller, which is a process of its own."""
    from ray.train import UserCallback

    class Logger(UserCallback):  # type: ignore[misc]  # Ray is untyped here
        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
            figures = {name: float(value) for name, value in metrics[0].items()}  # every rank reports the same
            if "saved_on_notice" in figures:
                del figures["validation_loss"]  # it was not measured
            run.log_metrics(figures, step=metrics[0]["step"])

    return Logger()


@contextmanager
def _progress(run: Run, label: str, total: int) -> Iterator[None]:
    """A bar that follows what the controller has logged."""
    ended = threading.Event()

    def follow(bar: Meter) -> None:
        while not ended.wait(1.0):
            rows = curve(run)
            if rows:
                note = f"loss {rows[-1]['train_loss']:.3f}, validation {rows[-1]['validation_loss']:.3f}"
                bar.update(int(rows[-1]["step"]), f"{note} (accuracy {rows[-1]['validation_accuracy']:.3f})")

    with meter(label, total) as bar:
        thread = threading.Thread(target=follow, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def curve(run: Run) -> list[dict[str, float]]:
    """The reports of a run in order: step, losses, accuracy, rate, gradient norm, rows per second."""
    rows: dict[int, dict[str, float]] = {}
    for name in CURVE:
        for step, value in run.history(name):
            rows.setdefault(step, {"step": step})[name] = value
    return [rows[step] for step in sorted(rows) if len(rows[step]) == len(CURVE) + 1]


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    causes = [f"worker {rank}: {str(e).strip().splitlines()[-1]}" for rank, e in failures.items()]
    return "; ".join(causes) or str(error).strip().splitlines()[-1]
