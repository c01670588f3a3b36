"""DeepSpeed's configuration from the spec, and the memory it comes to. Pure; knows DeepSpeed's dictionary.

ZeRO stages after Rajbhandari et al. 2020: 1 shards optimizer state, 2 gradients too, 3 weights too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .spec import Spec

STAGES = (0, 1, 2, 3)

BUCKET = 2**24
"""Elements of the buffer that stages 1 to 3 reduce gradients through. DeepSpeed's own is 5e8: 2 GB on any device."""

LIVE = 2**26
"""Elements of whole weights that stage 3 gathers before it lets go of some. DeepSpeed's own is 1e9, with which a model
of less is never held in shards while it computes."""

_FLAT = 500_000_000  # elements of stage 0's buffer, which DeepSpeed has no key for
_FP32, _BF16 = 4, 2
_MOMENTS = 8  # Adam's two, in fp32
_NF4 = 0.516  # bytes a weight: 4 bits and doubly quantised constants (Dettmers et al. 2023)


@dataclass(frozen=True)
class Plan:
    """The stage that was picked, and why, in words."""

    stage: int
    reason: str


def plan(spec: Spec, *, parameters: int, trainable: int, device_bytes: int) -> Plan:
    """The smallest stage whose weights, gradients and Adam state fit in half of a device's memory.

    The other half is left to activations and the framework. `device_bytes` is one worker's memory.
    """
    wanted = spec.training.zero_stage
    if wanted != "auto":
        return Plan(wanted, "named in the spec")
    needs = {
        stage: states(
            stage,
            parameters=parameters,
            trainable=trainable,
            workers=spec.scaling.fewest_workers,
            precision=spec.training.precision,
        ).total
        for stage in STAGES
    }
    budget = device_bytes // 2
    for stage, need in needs.items():
        if need <= budget:
            return Plan(stage, f"needs {need / 2**20:.0f} MiB of the {budget / 2**20:.0f} MiB kept for model states")
    return Plan(3, f"even sharded, model states need {needs[3] / 2**20:.0f} MiB of {budget / 2**20:.0f} MiB")


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
    precision: Literal["fp32", "bf16"] = "fp32",
    quantised: int = 0,
) -> States:
    """Weights, gradients and AdamW's state as DeepSpeed shards and copies them.

    In stages 1 and 2 it keeps a copy of the trainable weights that the optimizer works on; for bf16 in any.
    `quantised` weights are held in 4 bits (NF4).
    """
    size = _FP32 if precision == "fp32" else _BF16
    copied = precision == "bf16" or stage in {1, 2}
    whole = (
        (parameters - quantised) * size + quantised * _NF4,
        trainable * size,
        trainable * (_MOMENTS + copied * _FP32),
    )
    weights, gradients, optimizer = (
        round(part / (workers if stage >= first else 1)) for part, first in zip(whole, (3, 2, 1), strict=True)
    )
    bucket = min(BUCKET if stage else _FLAT, trainable) * size if workers > 1 else 0
    gathered = min(LIVE, parameters) * size if stage == 3 and workers > 1 else 0  # noqa: PLR2004 - it shards weights
    return States(weights, gathered, gradients, optimizer, bucket)


def config(spec: Spec, stage: int, workers: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`. The optimizer is ours (torch AdamW), hence `allow_untested`.

    No `train_batch_size`: it would have to be what so many workers can share evenly (`batches.micro_batches`).
    """
    return {
        "train_micro_batch_size_per_gpu": spec.training.micro_batch_size,
        "gradient_accumulation_steps": spec.accumulation(workers),
        "gradient_clipping": spec.training.max_grad_norm,
        "bf16": {"enabled": spec.training.precision == "bf16"},
        "zero_optimization": {
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
