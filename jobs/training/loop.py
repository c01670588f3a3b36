"""The training loop itself, as every worker runs it: DeepSpeed's engine, torch's AdamW, validation, early stopping.

It knows nothing of Ray: who drives it passes `rank`, `world` and a `report` callable (see `train.py`, `tune.py`).
What it goes on from after an interruption is in `checkpoint.py`.
Our own loop because HF Trainer with DeepSpeed on CPU silently ignores ZeRO or the second worker.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs import tasks
from jobs.forgetting import ewc
from jobs.forgetting.ewc import Consolidation, Hold
from jobs.models import model
from jobs.spec import Spec
from jobs.tasks.task import Encoded
from jobs.tasks.writing import Sequences, require_apart

from . import batches, device, zero
from .tokens import Rows

if TYPE_CHECKING:
    import torch

    from .checkpoint import State

_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # as torch names them


class Report(Protocol):
    """Called equally often on every rank. `checkpoint` is a folder with this rank's files, or None."""

    def __call__(self, metrics: dict[str, Any], checkpoint: Path | None) -> None: ...


@dataclass(frozen=True)
class Work:
    """What to train, as plain values that travel to a worker. Rows stay where they are kept."""

    spec: Spec
    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    zero_stage: int
    epochs: int
    start: str | None = None
    """Folder of a trained model to go on from."""
    consolidation: Consolidation | None = None
    """Holds the weights of `start`; not with ZeRO stage 3."""
    class_weights: tuple[float, ...] | None = None
    """Of each label in the validation loss; in the training loss too, unless `train` has rare rows repeated."""

    def under(self, spec: Spec) -> Work:
        """The same work by another spec. Rows are made anew where it changes what the model takes of them."""
        made = replace(self, spec=spec)
        if (spec.base_model, spec.bounds) == (self.spec.base_model, self.spec.bounds):
            return made
        train, validation = (rows.under(spec, self.labels) for rows in (self.train, self.validation))
        held = self.consolidation
        if held is not None:
            held = replace(held, rows=held.rows.under(spec, self.labels))
        return replace(made, train=train, validation=validation, consolidation=held)


def never(step: int) -> bool:  # noqa: ARG001 - what `noticed` takes
    """For whoever gets no notice before it is ended."""
    return False


def run(
    work: Work,
    *,
    rank: int,
    world: int,
    threads: int,
    report: Report,
    resume: AbstractContextManager[str | Path] | None = None,
    noticed: Callable[[int], bool] = never,
    until: int | None = None,
) -> None:
    """Train until the last epoch or until validation loss has turned. torch.distributed must be initialised.

    `resume` gives the folder of a checkpoint, and may take it back once that has been read. `noticed` is asked after
    each step, on all ranks, whether a checkpoint is wanted at once. `until` pauses at the first report after so many
    epochs, which is one that there would have been anyway: who goes on from it is where nobody had paused.
    """
    import torch

    from . import checkpoint

    torch.set_num_threads(threads)
    spec = work.spec
    device.tell_deepspeed(spec)
    train, validation = work.train.open(), work.validation.open()
    per_epoch = math.ceil(len(train) / spec.training.global_batch_size)
    total = per_epoch * work.epochs
    pause = total if until is None else min(total, per_epoch * until)
    net = model.trainable(spec, work.labels, Path(work.start) if work.start else None)
    if isinstance(train, Sequences) and train.most is not None:
        require_apart(net, train)
    held = _hold(work, net)  # before a checkpoint is restored: what is held is the start
    engine = _engine(net, spec, work.zero_stage, total)
    weights = torch.tensor(work.class_weights, device=engine.device) if work.class_weights else None
    state = checkpoint.State()
    if resume is not None:
        with resume as folder:
            state = checkpoint.restore(engine, net, Path(folder))
    if state.reported:
        report(state.reported, None)
    if state.ended or state.step >= pause:
        return
    every = math.ceil(per_epoch / spec.training.evaluations_per_epoch)
    plan = batches.steps(
        train.lengths, spec.training.global_batch_size, spec.training.seed, begin=state.step, end=total
    )
    began, rows = time.monotonic(), 0
    for batch in plan:
        # Each step has its own seed: dropout is the same on every rank, and after a restart from a checkpoint.
        torch.manual_seed(spec.training.seed + state.step + 1)
        state.losses.append(_step(engine, train, batch, spec, rank, world, held, weights))
        state.step += 1
        rows += len(batch)
        ends = state.step == total
        if state.step % every == 0 or ends:
            loss, accuracy = _validate(engine, validation, spec, rank, world, weights)
            better = loss < state.best_loss
            state.best_loss = min(state.best_loss, loss)
            state.since_best = 0 if better else state.since_best + 1
            state.ended = ends or state.since_best >= spec.training.patience or not math.isfinite(loss)
            losses = checkpoint.mean_over_ranks(state.losses, engine.device)
            state.losses = []
            state.reported = {
                "step": state.step,
                "total_steps": total,
                "epoch": state.step / per_epoch,
                "train_loss": sum(losses) / len(losses),
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                "learning_rate": engine.get_lr()[0],
                "gradient_norm": float(engine.get_global_grad_norm() or 0.0),
                "rows_per_second": rows / (time.monotonic() - began),
                "workers": world,
                "memory_mib": _peak_memory(engine.device) / 2**20,
                "stopped_early": state.ended and not ends,
            }
            _report(engine, net, state, state.reported, report)
            if state.ended or state.step >= pause:
                return
        elif noticed(state.step):
            _report(engine, net, state, {"step": state.step, "saved_on_notice": 1, "validation_loss": math.nan}, report)


def _hold(work: Work, net: Any) -> Hold | None:
    if work.consolidation is None:
        return None
    net.to(device.of(work.spec))
    return ewc.hold(net, work.consolidation.rows.open(), work.consolidation.strength)


def _deepspeed() -> Any:
    """DeepSpeed. Its tuner, which is not used here, imports MLflow where it can: more than a second in each worker."""
    known = sys.modules.get("mlflow")
    if known is None:
        sys.modules["mlflow"] = None  # type: ignore[assignment]  # so that its import fails
    try:
        import deepspeed
    finally:
        if known is None:
            del sys.modules["mlflow"]
    return deepspeed


def _engine(net: Any, spec: Spec, stage: int, total: int) -> Any:
    import torch
    import torch.distributed as dist

    deepspeed = _deepspeed()
    if device.of(spec) == "cpu":
        # On a CPU DeepSpeed compiles this extension for a minute and training never calls it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    weights = [p for p in net.parameters() if p.requires_grad]
    training = spec.training
    # Fused takes half of the time on a CPU, where an offloaded optimizer steps too.
    fused = {"fused": True} if device.of(spec) == "cpu" or training.offload != "none" else {}
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay, **fused)
    warm = max(1, round(total * training.warmup_ratio))
    rate: Callable[[int], float] = lambda s: min((s + 1) / warm, (total - s) / max(1, total - warm + 1))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    workers = dist.get_world_size()
    engine, *_ = deepspeed.initialize(
        model=net, optimizer=optimizer, lr_scheduler=schedule, config=zero.config(spec, stage, workers)
    )
    if stage == 0 and workers == 1:
        # Else each step copies all gradients into a bucket and back, to add up with nobody's.
        engine.enable_backward_allreduce = False
    return engine


def _step(
    engine: Any,
    train: Encoded,
    batch: Any,
    spec: Spec,
    rank: int,
    world: int,
    held: Hold | None,
    weights: torch.Tensor | None,
) -> float:
    """One optimizer step; the mean loss of this rank's rows, without the penalty of what is held."""
    engine.train()
    task = tasks.get(spec.task)
    losses: list[float] = []
    for rows, share in batches.micro_batches(batch, rank, world, spec.accumulation(world)):
        inputs = _inputs(engine, train.batch(rows), spec)
        each, _ = task.losses(engine, inputs)
        loss = share * _weighed(each, inputs, weights if spec.data.balance == "class_weights" else None).mean()
        engine.backward(loss if held is None else loss + held.penalty())
        engine.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _inputs(engine: Any, batch: dict[str, torch.Tensor], spec: Spec) -> dict[str, torch.Tensor]:
    """A batch on the device; what is no number of a token or label, as pictures are, in the model's precision."""
    import torch

    precision = getattr(torch, _PRECISION[spec.training.precision])
    return {
        name: part.to(
            engine.device, precision if part.is_floating_point() and name not in {"labels", "beta"} else part.dtype
        )
        for name, part in batch.items()
    }


def _peak_memory(where: torch.device) -> int:
    """The most bytes that this worker has held: of its GPU where it computes there, else of the machine."""
    import torch

    if torch.device(where).type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _weighed(losses: torch.Tensor, batch: dict[str, torch.Tensor], weights: torch.Tensor | None) -> torch.Tensor:
    """The loss of each row times its label's weight.

    Not divided by the weights of the batch, as torch's own does: micro-batches then add up to the global batch.
    """
    return losses if weights is None else losses * weights[batch["labels"]]


def _validate(
    engine: Any, data: Encoded, spec: Spec, rank: int, world: int, weights: torch.Tensor | None
) -> tuple[float, float]:
    """(loss, accuracy) over all ranks' rows; of a target of several parts accuracy is the share that is right."""
    import torch
    import torch.distributed as dist

    engine.eval()
    task = tasks.get(spec.task)
    sums = torch.zeros(3, dtype=torch.float64, device=engine.device)  # NCCL adds up what is on GPUs only
    with torch.no_grad():
        for rows, counting in batches.shard(len(data), rank, world, 2 * spec.training.micro_batch_size):
            inputs = _inputs(engine, data.batch(rows), spec)
            losses, right = task.losses(engine, inputs)
            sums[0] += _weighed(losses, inputs, weights)[:counting].sum().item()
            sums[1] += right[:counting].sum().item()
            sums[2] += counting
    dist.all_reduce(sums)
    return float(sums[0] / sums[2]), float(sums[1] / sums[2])


def _report(engine: Any, net: Any, state: State, metrics: dict[str, Any], report: Report) -> None:
    from . import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(engine, net, state, Path(folder))
        report(metrics, Path(folder))
