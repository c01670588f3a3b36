from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import TrainingError
from jobs.forgetting.blend import blend


def folder(path: Path, part: str, **weights: list[float]) -> Path:
    (path / part).mkdir(parents=True)
    save_file({name: torch.tensor(value) for name, value in weights.items()}, path / part / "model.safetensors")
    return path


@pytest.mark.parametrize("part", ["adapter", "weights"])
def test_it_lies_on_the_line(tmp_path: Path, part: str) -> None:
    start = folder(tmp_path / "start", part, a=[0.0, 1.0], b=[2.0])
    trained = folder(tmp_path / "trained", part, a=[1.0, 3.0], b=[2.0])
    for share, wanted in ((0.0, [0.0, 1.0]), (0.75, [0.75, 2.5]), (1.0, [1.0, 3.0])):
        blend(start, trained, share, tmp_path / str(share))
        found = load_file(tmp_path / str(share) / part / "model.safetensors")
        assert (found["a"].tolist(), found["b"].tolist()) == (wanted, [2.0])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    start = folder(tmp_path / "start", "adapter", a=[0.0])
    trained = folder(tmp_path / "trained", "adapter", a=[0.0, 1.0])
    with pytest.raises(TrainingError, match="was not trained from"):
        blend(start, trained, 0.5, tmp_path / "out")
