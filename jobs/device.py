"""Where a training computes."""

from __future__ import annotations

import os
from typing import Literal

from .spec import Spec


def of(spec: Spec) -> Literal["cuda", "cpu"]:
    """A GPU where the spec wants one and one is there: what else a machine has may be others'."""
    import torch

    return "cuda" if spec.scaling.use_gpu and torch.cuda.is_available() else "cpu"


def tell_deepspeed(spec: Spec) -> None:
    """DeepSpeed, which looks for itself, shall take the same. Before its first import in a process."""
    os.environ["DS_ACCELERATOR"] = of(spec)
