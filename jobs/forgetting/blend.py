"""A model on the straight line between the one a retraining started from and the one it ended at.

Weights that were fine-tuned from the same point can be averaged: most of what was learned stays, much of what was
forgotten comes back, and nothing is trained again (WiSE-FT, Wortsman et al. 2022).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.errors import TrainingError


def blend(start: Path, trained: Path, share: float, folder: Path) -> None:
    """Write the trained folder's `adapter/` or `weights/` to `folder`, `share` of the way from `start` to it.

    Raises TrainingError when the two do not hold the same weights.
    """
    from safetensors.torch import load_file, save_file

    part = "adapter" if (trained / "adapter").is_dir() else "weights"
    shutil.copytree(trained / part, folder / part)
    for file in sorted((folder / part).glob("*.safetensors")):
        old, new = load_file(start / part / file.name), load_file(file)
        if {k: v.shape for k, v in old.items()} != {k: v.shape for k, v in new.items()}:
            raise TrainingError("was not trained from the weights it is to be blended with", where=str(trained))
        mixed = {name: old[name].lerp(weight, share).contiguous() for name, weight in new.items()}
        save_file(mixed, file, metadata={"format": "pt"})
