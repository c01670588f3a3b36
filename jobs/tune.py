"""The sweep: Ray Tune with ASHA (Li et al. 2020) over dotted keys of the spec, trials on the training loop as it is.

A trial is one worker in one process (no nested trainer: that costs 20 s a trial and can leak its placement group).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.console import Meter, meter
from cluster.errors import TrainingError
from cluster.storage import Storage
from cluster.tracking import Run

from . import loop
from .loop import Work
from .spec import Range, Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

METRIC = "validation_loss"


@dataclass(frozen=True)
class Trial:
    """One point: the values it had, its best validation loss and accuracy, how far ASHA let it go."""

    id: str
    values: dict[str, Any]
    validation_loss: float | None
    validation_accuracy: float | None
    epochs: float
    status: str
    """`finished`, `stopped` by ASHA, or `failed`."""
    error: str = ""


@dataclass(frozen=True)
class Swept:
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """Raises TrainingError when every trial failed."""
        usable = [t for t in self.trials if t.validation_loss is not None]
        if not usable:
            raise TrainingError(f"all {len(self.trials)} trials failed: {self.trials[0].error}")
        return min(usable, key=lambda t: t.validation_loss or 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"best": asdict(self.best), "trials": [asdict(t) for t in self.trials]}


def sweep(job: Work, storage: Storage, run: Run) -> Swept:
    """Run `spec.sweep` over the job. Ray must be connected. Raises TrainingError."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    spec = job.spec
    scheduler = ASHAScheduler(
        time_attr="epoch",  # not the count of reports: an epoch of few steps has fewer than the spec asks for
        max_t=spec.sweep.epochs,
        grace_period=spec.sweep.grace_epochs,
        reduction_factor=spec.sweep.reduction_factor,
    )
    trainable = tune.with_resources(
        tune.with_parameters(_trial, job=_small(job)),
        {"CPU": spec.scaling.cpus_per_worker, "GPU": 1 if spec.scaling.use_gpu else 0},
    )
    with meter("sweep", spec.sweep.trials) as bar:
        tuner = tune.Tuner(
            trainable,
            param_space={key: _distribution(r) for key, r in spec.sweep.search.items()},
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="min",
                num_samples=spec.sweep.trials,
                scheduler=scheduler,
                # The same spec draws the same points.
                search_alg=BasicVariantGenerator(max_concurrent=spec.sweep.concurrent, random_state=spec.training.seed),
            ),
            run_config=tune.RunConfig(
                name=run.id,
                storage_path=storage.url("checkpoints"),
                callbacks=[_progress(bar)],
                verbose=0,
            ),
        )
        results = tuner.fit()
    swept = Swept(tuple(_read(result, spec) for result in results))
    _log(swept, run)
    return swept


def _small(job: Work) -> Work:
    """A trial's work: one worker, the sweep's epochs and share of the rows, no early stop of its own."""
    spec = job.spec
    rows = job.train.sample(frac=spec.sweep.share, random_state=spec.training.seed)
    single = spec.with_values({"scaling.workers": 1, "training.patience": 10**6})
    return replace(job, spec=single, train=rows, epochs=spec.sweep.epochs, zero_stage=0)


def _trial(values: dict[str, Any], job: Work) -> None:
    """What Tune runs in each trial's process."""
    from ray import tune

    spec = job.spec.with_values(values)
    best = float("inf")

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:  # noqa: ARG001 - trials keep no weights
        nonlocal best
        best = min(best, metrics[METRIC])
        tune.report(metrics | {METRIC: best})

    with alone():
        loop.run(replace(job, spec=spec), rank=0, world=1, threads=spec.scaling.cpus_per_worker, report=report)


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one, as DeepSpeed needs it, without a port."""
    import torch.distributed as dist

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _distribution(wanted: Range) -> Any:
    from ray import tune

    if wanted.choice is not None:
        return tune.choice(list(wanted.choice))
    if wanted.uniform is not None:
        return tune.uniform(*wanted.uniform)
    assert wanted.loguniform is not None
    return tune.loguniform(*wanted.loguniform)


def _progress(bar: Meter) -> Any:
    from ray import tune

    class Progress(tune.Callback):  # type: ignore[misc]  # Ray is untyped here
        ended = 0

        def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
            self.ended += 1
            losses = [t.last_result[METRIC] for t in trials if METRIC in (t.last_result or {})]
            bar.update(self.ended, f"best validation loss {min(losses):.3f}" if losses else "")

        def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
            self.ended += 1
            bar.update(self.ended, "a trial failed")

    return Progress()


def _read(result: Any, spec: Spec) -> Trial:
    metrics = result.metrics or {}
    epochs, loss = float(metrics.get("epoch", 0.0)), metrics.get(METRIC)
    error = str(result.error).strip().splitlines()[-1] if result.error else ""
    if loss is not None and not math.isfinite(loss):
        loss, error = None, error or "diverged"
    status = "failed" if error else ("finished" if epochs >= spec.sweep.epochs else "stopped")
    return Trial(
        id=str(metrics.get("trial_id", Path(result.path).name)),
        values={key: metrics.get("config", {}).get(key) for key in spec.sweep.search},
        validation_loss=loss,
        validation_accuracy=metrics.get("validation_accuracy"),
        epochs=epochs,
        status=status,
        error=error,
    )


def _log(swept: Swept, run: Run) -> None:
    for step, trial in enumerate(swept.trials):
        if trial.validation_loss is not None:
            run.log_metrics({f"trial_{METRIC}": trial.validation_loss, "trial_epochs": trial.epochs}, step=step)
    run.log_json([asdict(trial) for trial in swept.trials], "sweep.json")
