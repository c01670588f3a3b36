"""What a training goes on from: weights and Adam's moments whole and by name, the schedule, and where the loop is.

Nothing in it depends on how many workers wrote it or on the ZeRO stage, so any number of workers in any stage can go on
from it (docs/decisions/0014). Every rank writes the tensors that are its own to write, and the driver merges the
folders; no rank ever holds more than its part of the state and one tensor besides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

from jobs.models import model

_LOOP, _STATE = "loop.json", "state-*.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SHARDED = 3  # the ZeRO stage that shards weights


@dataclass
class State:
    """Where the loop is. `losses` are those of the steps since the last report, of this rank's rows."""

    step: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    losses: list[float] = field(default_factory=list)
    ended: bool = False
    reported: dict[str, Any] = field(default_factory=dict)
    """The last report, which the curve may lack when its reader died with the checkpoint just written."""


def save(engine: Any, net: Any, state: State, folder: Path) -> None:
    """Write this rank's part of a checkpoint, the first rank's with the model as it is published. A collective call."""
    rank, world = dist.get_rank(), dist.get_world_size()
    mine: dict[str, torch.Tensor] = {}
    for number, (name, value) in enumerate(_tensors(engine, net)):
        if number % world == rank:
            mine[name] = value.detach().to("cpu", copy=True).contiguous()
    save_file(mine, folder / f"state-{rank:05d}-of-{world:05d}.safetensors")
    losses = mean_over_ranks(state.losses, engine.device)
    weights = _gathered(engine, net)
    if rank == 0:
        model.save(net, weights, folder)
        kept = asdict(state) | {"losses": losses}
        tree = {"loop": kept, "adam": _adam_step(engine), "schedule": engine.lr_scheduler.state_dict()}
        (folder / _LOOP).write_text(json.dumps(tree))


def parts(folder: Path) -> list[Path]:
    """What a training goes on from among the files that one rank saved; the others are the model as it is published."""
    return [file for pattern in (_STATE, _LOOP) for file in folder.glob(pattern)]


def restore(engine: Any, net: Any, folder: Path) -> State:
    """Put a checkpoint's weights, moments and schedule into an engine that has not taken a step. A collective call."""
    tree = json.loads((folder / _LOOP).read_text())
    _begin_moments(engine, tree["adam"])
    tensors = _Tensors(folder)
    own = _own(engine, net)
    for name, parameter in _trainable(net):
        _set_weight(engine, parameter, tensors[f"weight/{name}"])
        for key in (None, *_MOMENTS):
            value = tensors[f"{key or 'weight'}/{name}"]
            if own:
                (own[name].data if key is None else _moment(engine, own[name], key)).copy_(value)
            else:
                _set_state(engine, parameter, value, key)
    for name, buffer in _buffers(net):
        buffer.copy_(tensors[f"buffer/{name}"])
    schedule = engine.lr_scheduler
    schedule.load_state_dict(tree["schedule"])
    for group, rate in zip(schedule.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return State(**tree["loop"])


class _Tensors:
    """The tensors of all ranks' files by name, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        files: list[Any] = [safe_open(file, "pt") for file in sorted(folder.glob(_STATE))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - it is no dict

    def __getitem__(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._files[name].get_tensor(name)
        return found


def _tensors(engine: Any, net: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors, in the same order on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    own = _own(engine, net)
    for name, parameter in _trainable(net):
        yield f"weight/{name}", own[name] if own else safe_get_full_fp32_param(parameter)
        for key in _MOMENTS:
            whole = _moment(engine, own[name], key) if own else safe_get_full_optimizer_state(parameter, key)
            yield f"{key}/{name}", whole
    for name, buffer in _buffers(net):
        yield f"buffer/{name}", buffer


def _moment(engine: Any, weight: torch.Tensor, key: str) -> torch.Tensor:
    """Adam's moment of a weight of its own; zeros for one that never had a gradient."""
    state: dict[str, torch.Tensor] = _adam(engine).state.get(weight, {})
    return state[key] if key in state else torch.zeros_like(weight)


def _trainable(net: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]


def _buffers(net: Any) -> list[tuple[str, torch.Tensor]]:
    """What a forward pass may change and a model keeps: means and variances of batch normalisation."""
    kept = net.state_dict().keys()
    return [(name, buffer) for name, buffer in net.named_buffers() if name in kept]


def _adam(engine: Any) -> torch.optim.Optimizer:
    """The optimizer that DeepSpeed was given, which it puts its own around but in stage 0 with fp32."""
    given = engine.optimizer
    made: torch.optim.Optimizer = given if isinstance(given, torch.optim.Optimizer) else given.optimizer
    return made


def _worked_on(engine: Any) -> list[torch.Tensor]:
    """The tensors that the optimizer works on: parameters, fp32 copies of them, or flat parts of such copies."""
    if engine.zero_optimization_stage() == _SHARDED:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return [tensor for group in _adam(engine).param_groups for tensor in group["params"]]


def _own(engine: Any, net: Any) -> dict[str, torch.Tensor]:
    """Stage 0's weights by name as the optimizer has them: the parameters or, in bf16, fp32 copies. Else nothing."""
    if engine.zero_optimization_stage():
        return {}
    return dict(zip((name for name, _ in _trainable(net)), _worked_on(engine), strict=True))


def _adam_step(engine: Any) -> float:
    """Steps that Adam has taken, by which it corrects its moments."""
    return max((float(state["step"]) for state in _adam(engine).state.values()), default=0.0)


def _begin_moments(engine: Any, step: float) -> None:
    """Adam's state as it is after so many steps, but for the moments' values. It makes it itself at its first step."""
    for tensor in _worked_on(engine):
        moments = {key: torch.zeros_like(tensor) for key in _MOMENTS}
        _adam(engine).state[tensor] = {"step": torch.tensor(step), **moments}
    if 0 < engine.zero_optimization_stage() < _SHARDED:
        # DeepSpeed ties parameters to their part of the moments after a first step only, and has no other name for it.
        engine.optimizer._lazy_init_hp_params_optimizer_state()  # noqa: SLF001


def _set_weight(engine: Any, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    """The parameter itself, of which DeepSpeed or the optimizer may have an fp32 copy."""
    if engine.zero_optimization_stage() < _SHARDED:
        parameter.data.copy_(value)
    else:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if dist.get_rank() == 0:
                parameter.data.copy_(value)


def _set_state(engine: Any, parameter: torch.nn.Parameter, value: torch.Tensor, key: str | None) -> None:
    """A moment, or with no key the fp32 weight, of DeepSpeed's copy, from the whole of it."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    if engine.zero_optimization_stage() < _SHARDED:
        whole = value.to(engine.device)
        if key is None:
            safe_set_full_fp32_param(parameter, whole)
        else:
            safe_set_full_optimizer_state(parameter, whole, key)
    else:
        # Not by the calls for whole tensors, which fail where the workers cannot share one evenly.
        part = _part(value, parameter.ds_tensor.numel()).to(engine.device)
        if key is None:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, key)


def _part(value: torch.Tensor, size: int) -> torch.Tensor:
    """This rank's part of a tensor that is flattened and filled up with zeros, shape (size,)."""
    padded = torch.zeros(size * dist.get_world_size(), dtype=value.dtype)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)


def mean_over_ranks(losses: list[float], device: torch.device) -> list[float]:
    """Of each step's loss. A collective call."""
    if not losses:
        return []
    sums = torch.tensor(losses, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(loss) for loss in sums / dist.get_world_size()]


def _gathered(engine: Any, net: Any) -> dict[str, Any] | None:
    """Whole weights where stage 3 keeps shards (a collective call); None where each rank has them anyway."""
    if engine.zero_optimization_stage() < _SHARDED:
        return None
    import deepspeed

    needed = [(n, p) for n, p in net.named_parameters() if p.requires_grad or not hasattr(net, "peft_config")]
    with deepspeed.zero.GatheredParameters([p for _, p in needed]):
        return {name: parameter.detach().clone() for name, parameter in needed}
