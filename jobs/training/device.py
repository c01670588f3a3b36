"""Where a training computes."""

from __future__ import annotations

import os

from jobs.spec import Spec


def of(spec: Spec) -> str:
    """`cuda:N`, the worker's own, where the spec wants a GPU and one is there, else `cpu`: others may be others'."""
    import torch

    wanted = spec.scaling.use_gpu and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if wanted else "cpu"


def tell_deepspeed(spec: Spec) -> None:
    """DeepSpeed, which looks for itself, shall take the same. Before its first import in a process."""
    os.environ["DS_ACCELERATOR"] = of(spec).partition(":")[0]
