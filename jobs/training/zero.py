"""DeepSpeed's configuration from the spec, and the memory it comes to. Pure; knows DeepSpeed's dictionary.

ZeRO stages after Rajbhandari et al. 2020: 1 shards optimizer state, 2 gradients too, 3 weights too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jobs.spec import Spec

STAGES = (0, 1, 2, 3)

BUCKET = 2**24
"""Elements of the buffer that stages 1 to 3 reduce gradients through. DeepSpeed's own is 5e8: 2 GB on any device."""

LIVE = 2**26
"""Elements of whole weights that stage 3 gathers before it lets go of some. DeepSpeed's own is 1e9, with which a model
of less is never held in shards while it computes."""

_FLAT = 500_000_000  # elements of stage 0's buffer, which DeepSpeed has no key for
_FP32, _HALF = 4, 2
_MOMENTS = 8  # Adam's two, in fp32
_NF4 = 0.516  # bytes a weight: 4 bits and doubly quantised constants (Dettmers et al. 2023)


@dataclass(frozen=True)
class Plan:
    """The stage that was picked, and why, in words."""

    stage: int
    reason: str


def plan(spec: Spec, *, parameters: int, trainable: int, device_bytes: int, quantised: int = 0) -> Plan:
    """The smallest stage whose weights, gradients and Adam state fit in half of a device's memory.

    The other half is left to activations and the framework. `device_bytes` is one worker's memory.
    """
    wanted, training = spec.training.zero_stage, spec.training
    if wanted != "auto":
        return Plan(wanted, "named in the spec")
    needs = {
        stage: states(
            stage,
            parameters=parameters,
            trainable=trainable,
            workers=spec.scaling.fewest_workers,
            precision=training.precision,
            quantised=quantised,
            offload=training.offload,
        ).total
        for stage in spec.zero_stages
    }
    budget, first, last = device_bytes // 2, spec.zero_stages[0], spec.zero_stages[-1]
    fitting = next((stage for stage, need in needs.items() if need <= budget), None)
    stage = last if fitting is None else fitting
    why = f"needs {_mib(needs[stage])} of the {_mib(budget)} kept for model states"
    if fitting is None:
        why = f"even so, model states need {_mib(needs[last])} of {_mib(budget)}"
    elif stage > first:
        why += f", stage {stage - 1} {_mib(needs[stage - 1])}"
    if stage == first > 0:
        asked = f"offload: {training.offload}" if training.offload != "none" else f"precision: {training.precision}"
        why += f"; {asked} begins with stage {first}"
    return Plan(stage, why)


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"


@dataclass(frozen=True)
class States:
    """Bytes of one device. `bucket` is what gradients are gathered in before they are reduced over workers.

    `gathered` are the weights that stage 3 has whole for a while, beside its shard of them.
    """

    weights: int
    gathered: int
    gradients: int
    optimizer: int
    bucket: int

    @property
    def total(self) -> int:
        return self.weights + self.gathered + self.gradients + self.optimizer + self.bucket

    def peak(self, activations: int, *, accumulating: bool) -> int:
        """The most held at once: activations go while gradients come, unless a step before has left its own."""
        kept = self.gradients if accumulating else 0
        held = self.weights + self.gathered + self.optimizer + kept
        return held + max(activations, self.gradients - kept + self.bucket)


def states(
    stage: int,
    *,
    parameters: int,
    trainable: int,
    workers: int,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    quantised: int = 0,
    offload: Literal["none", "optimizer", "parameters"] = "none",
) -> States:
    """Weights, gradients and AdamW's state as DeepSpeed shards and copies them.

    In stages 1 and 2 it keeps a copy of the trainable weights that the optimizer works on; for half precision in any.
    `quantised` weights are held in 4 bits (NF4). What is offloaded is not the device's.
    """
    size = _FP32 if precision == "fp32" else _HALF
    copied = precision != "fp32" or stage in {1, 2}
    whole = (
        (parameters - quantised) * size + quantised * _NF4,
        trainable * size,
        trainable * (_MOMENTS + copied * _FP32),
    )
    weights, gradients, optimizer = (
        round(part / (workers if stage >= first else 1)) for part, first in zip(whole, (3, 2, 1), strict=True)
    )
    bucket = min(BUCKET if stage else _FLAT, trainable) * size if workers > 1 else 0
    apart = workers > 1 or offload == "parameters"
    gathered = min(LIVE, parameters) * size if stage == 3 and apart else 0  # noqa: PLR2004 - it shards weights
    held = weights if offload != "parameters" else 0
    return States(held, gathered, gradients, optimizer if offload == "none" else 0, bucket)


def config(spec: Spec, stage: int, workers: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`. The optimizer is ours (torch AdamW), hence `allow_untested`; also for
    what is offloaded, where DeepSpeed's own would have to be compiled first.

    No `train_batch_size`: it would have to be what so many workers can share evenly (`batches.micro_batches`).
    """
    return {
        "train_micro_batch_size_per_gpu": spec.training.micro_batch_size,
        "gradient_accumulation_steps": spec.accumulation(workers),
        "gradient_clipping": spec.training.max_grad_norm,
        "bf16": {"enabled": spec.training.precision == "bf16"},
        # From 2**16, DeepSpeed's own, a short training would leave out most of its steps until the scale fits.
        "fp16": {"enabled": spec.training.precision == "fp16", "initial_scale_power": 12},
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            **_offloaded(spec),
            "stage": stage,
            "reduce_bucket_size": BUCKET,
            "stage3_max_live_parameters": LIVE,
            "stage3_max_reuse_distance": LIVE,
            "stage3_prefetch_bucket_size": BUCKET,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _offloaded(spec: Spec) -> dict[str, Any]:
    place = {"device": "cpu", "pin_memory": True}
    match spec.training.offload:
        case "parameters":
            return {"offload_optimizer": place, "offload_param": place}
        case "optimizer":
            return {"offload_optimizer": place}
        case _:
            return {}
