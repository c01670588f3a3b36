"""The training loop itself, as every worker runs it: DeepSpeed's engine, torch's AdamW, validation, early stopping.

It knows nothing of Ray: who drives it passes `rank`, `world` and a `report` callable (see `train.py`, `tune.py`).
Our own loop because HF Trainer with DeepSpeed on CPU silently ignores ZeRO or the second worker.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
import torch.distributed as dist

from jobs.forgetting import ewc
from jobs.forgetting.ewc import Consolidation, Hold

from . import batches, model, tasks, zero
from .spec import Spec
from .tasks.task import Encoded


class Report(Protocol):
    """Called equally often on every rank. `checkpoint` is a folder with this rank's files, or None."""

    def __call__(self, metrics: dict[str, Any], checkpoint: Path | None) -> None: ...


@dataclass(frozen=True)
class Work:
    """What to train, as plain values that travel to a worker."""

    spec: Spec
    labels: tuple[str, ...]
    train: pd.DataFrame
    validation: pd.DataFrame
    zero_stage: int
    epochs: int
    start: str | None = None
    """Folder of a trained model to go on from."""
    consolidation: Consolidation | None = None
    """Holds the weights of `start`; not with ZeRO stage 3."""
    class_weights: tuple[float, ...] | None = None
    """Of each label in the validation loss; in the training loss too, unless `train` has rare rows repeated."""


@dataclass
class State:
    """Where the loop is; written with each checkpoint."""

    step: int = 0
    best_loss: float = math.inf
    since_best: int = 0


def run(work: Work, *, rank: int, world: int, threads: int, report: Report, resume: Path | None = None) -> None:
    """Train until the last epoch or until validation loss has turned. torch.distributed must be initialised."""
    torch.set_num_threads(threads)
    spec = work.spec
    processor = tasks.get(spec.task).processor(model.locate(spec.base_model))
    train, validation = (_encode(work, processor, rows) for rows in (work.train, work.validation))
    per_epoch = math.ceil(len(train) / spec.training.global_batch_size)
    total = per_epoch * work.epochs
    net = model.trainable(spec, work.labels, Path(work.start) if work.start else None)
    held = _hold(work, processor, net)  # before a checkpoint is restored: what is held is the start
    engine = _engine(net, spec, work.zero_stage, total)
    weights = torch.tensor(work.class_weights, device=engine.device) if work.class_weights else None
    state = _restore(engine, resume) if resume else State()
    every = math.ceil(per_epoch / spec.training.evaluations_per_epoch)

    seen: list[float] = []
    began, rows = time.monotonic(), 0
    while state.step < total:
        number, at = divmod(state.step, per_epoch)
        plan = batches.epoch(train.lengths, spec.training.global_batch_size, spec.training.seed + number)
        for batch in plan[at:]:
            # Each step has its own seed: dropout is the same on every rank, and after a restart from a checkpoint.
            torch.manual_seed(spec.training.seed + state.step + 1)
            seen.append(_step(engine, train, batch, spec, rank, world, held, weights))
            state.step += 1
            rows += len(batch)
            ends = state.step == total
            if state.step % every == 0 or ends:
                loss, accuracy = _validate(engine, validation, spec, rank, world, weights)
                better = loss < state.best_loss
                state.best_loss = min(state.best_loss, loss)
                state.since_best = 0 if better else state.since_best + 1
                stop = ends or state.since_best >= spec.training.patience or not math.isfinite(loss)
                metrics = {
                    "step": state.step,
                    "total_steps": total,
                    "epoch": state.step / per_epoch,
                    "train_loss": sum(seen) / len(seen),
                    "validation_loss": loss,
                    "validation_accuracy": accuracy,
                    "learning_rate": engine.get_lr()[0],
                    "gradient_norm": float(engine.get_global_grad_norm() or 0.0),
                    "rows_per_second": rows / (time.monotonic() - began),
                    "stopped_early": stop and not ends,
                }
                seen = []
                _report(engine, net, state, metrics, rank, report)
                if stop:
                    return


def _encode(work: Work, processor: Any, rows: pd.DataFrame) -> Encoded:
    task, bounds = tasks.get(work.spec.task), work.spec.bounds
    return task.encode(processor, list(rows["input"]), list(rows["label"]), work.labels, bounds)


def _hold(work: Work, processor: Any, net: Any) -> Hold | None:
    if work.consolidation is None:
        return None
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    return ewc.hold(net, _encode(work, processor, work.consolidation.rows), work.consolidation.strength)


def _engine(net: Any, spec: Spec, stage: int, total: int) -> Any:
    import deepspeed

    if not torch.cuda.is_available():
        # On a CPU DeepSpeed compiles this extension for a minute and training never calls it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=spec.training.learning_rate, weight_decay=spec.training.weight_decay)
    warm = max(1, round(total * spec.training.warmup_ratio))
    rate: Callable[[int], float] = lambda s: min((s + 1) / warm, (total - s) / max(1, total - warm + 1))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    engine, *_ = deepspeed.initialize(
        model=net, optimizer=optimizer, lr_scheduler=schedule, config=zero.config(spec, stage)
    )
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
    for rows in batches.micro_batches(batch, rank, world, spec.training.micro_batch_size):
        inputs = {k: v.to(engine.device) for k, v in train.batch(rows).items()}
        each, _ = task.losses(engine, inputs)
        loss = _weighed(each, inputs, weights if spec.data.balance == "class_weights" else None).mean()
        engine.backward(loss if held is None else loss + held.penalty())
        engine.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _weighed(losses: torch.Tensor, batch: dict[str, torch.Tensor], weights: torch.Tensor | None) -> torch.Tensor:
    """The loss of each row times its label's weight.

    Not divided by the weights of the batch, as torch's own does: micro-batches then add up to the global batch.
    """
    return losses if weights is None else losses * weights[batch["labels"]]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is untyped here
def _validate(
    engine: Any, data: Encoded, spec: Spec, rank: int, world: int, weights: torch.Tensor | None
) -> tuple[float, float]:
    """(loss, accuracy) over all ranks' rows; of a target of several parts accuracy is the share that is right."""
    engine.eval()
    task = tasks.get(spec.task)
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, counting in batches.shard(len(data), rank, world, 2 * spec.training.micro_batch_size):
        inputs = {k: v.to(engine.device) for k, v in data.batch(rows).items()}
        losses, right = task.losses(engine, inputs)
        sums[0] += _weighed(losses, inputs, weights)[:counting].sum().item()
        sums[1] += right[:counting].sum().item()
        sums[2] += counting
    dist.all_reduce(sums)
    return float(sums[0] / sums[2]), float(sums[1] / sums[2])


def _report(engine: Any, net: Any, state: State, metrics: dict[str, Any], rank: int, report: Report) -> None:
    """Every rank writes its optimizer shard, rank 0 the weights as well; the driver merges the folders."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        engine.save_checkpoint(str(here), tag="state", exclude_frozen_parameters=True)
        weights = _gathered(engine, net)
        if rank == 0:
            model.save(net, weights, here)
            (here / "loop.json").write_text(json.dumps(vars(state)))
        report(metrics, here)


def _gathered(engine: Any, net: Any) -> dict[str, Any] | None:
    """Whole weights where stage 3 keeps shards (a collective call); None where each rank has them anyway."""
    if engine.zero_optimization_stage() < 3:  # noqa: PLR2004 - the ZeRO stage that shards weights
        return None
    import deepspeed

    needed = [(n, p) for n, p in net.named_parameters() if p.requires_grad or not hasattr(net, "peft_config")]
    with deepspeed.zero.GatheredParameters([p for _, p in needed]):
        return {name: parameter.detach().clone() for name, parameter in needed}


def _restore(engine: Any, folder: Path) -> State:
    engine.load_checkpoint(str(folder), tag="state", load_module_strict=False)
    return State(**json.loads((folder / "loop.json").read_text()))
