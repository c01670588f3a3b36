"""DeepSpeed's configuration from the spec. Pure; the only file that knows DeepSpeed's dictionary.

ZeRO stages after Rajbhandari et al. 2020: 1 shards optimizer state, 2 gradients too, 3 weights too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .spec import Spec

_BYTES = 4  # fp32 weights, gradients and each of Adam's two moments


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
    workers = spec.scaling.workers
    weights, gradients, moments = parameters * _BYTES, trainable * _BYTES, 2 * trainable * _BYTES
    needs = {
        0: weights + gradients + moments,
        1: weights + gradients + moments // workers,
        2: weights + (gradients + moments) // workers,
        3: (weights + gradients + moments) // workers,
    }
    budget = device_bytes // 2
    for stage, need in needs.items():
        if need <= budget:
            return Plan(stage, f"needs {need / 2**20:.0f} MiB of the {budget / 2**20:.0f} MiB kept for model states")
    return Plan(3, f"even sharded, model states need {needs[3] / 2**20:.0f} MiB of {budget / 2**20:.0f} MiB")


def config(spec: Spec, stage: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`. The optimizer is ours (torch AdamW), hence `allow_untested`."""
    return {
        "train_batch_size": spec.training.global_batch_size,
        "train_micro_batch_size_per_gpu": spec.training.micro_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "gradient_clipping": spec.training.max_grad_norm,
        "bf16": {"enabled": spec.training.precision == "bf16"},
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
