"""Which of two answers is better: direct preference optimization of a causal model (DPO, Rafailov et al. 2023).

    loss = -log sigmoid(beta * ((log p(chosen) - log q(chosen)) - (log p(rejected) - log q(rejected))))

over the tokens of an answer, p the model and q the reference, which is the model without its adapter, as TRL's
DPOTrainer has it (`bench/preference.py` holds the one to the other; its loss is not to be had without its trainer).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.targets import preference
from jobs.training.columns import Ragged

from . import writing
from .task import Bounds, Encoded, Task
from .text_generation import TextGeneration, prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preferred:
    """Each row twice: with the better answer behind it, and with the worse one."""

    better: writing.Sequences
    worse: writing.Sequences
    beta: float

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.maximum(self.better.lengths, self.worse.lengths)

    def __len__(self) -> int:
        return len(self.better)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` (2 x rows, longest), the better answers first; and `beta`."""
        import torch

        both = [self.better.row(i) for i in rows] + [self.worse.row(i) for i in rows]
        return {**writing.filled(both, self.better.pad), "beta": torch.tensor(self.beta)}


class PreferenceTuning(TextGeneration):
    targets = preference

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        if targets is None:
            return super().encode(processor, inputs, None, labels, bounds)
        ids = Ragged.of([prompt(processor, given)[-bounds.input :] for given in inputs])
        better, worse = (
            writing.Sequences(ids, writing.endings(processor, side, bounds.answer), processor.pad_token_id, joint=True)
            for side in zip(*map(preference.pair, targets), strict=True)
        )
        return Preferred(better, worse, bounds.beta)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """DPO's loss of each row, and whether the better answer has gained more than the worse one."""
        import torch

        given = {name: part for name, part in batch.items() if name not in {"labels", "beta"}}
        said = _chances(net, given, batch["labels"])
        learning = net.training
        net.eval()  # a reference does not draw
        with torch.no_grad(), _reference(net):
            before = _chances(net, given, batch["labels"])
        net.train(learning)
        better, worse = (said - before).chunk(2)
        margins = better - worse
        return -torch.nn.functional.logsigmoid(batch["beta"].float() * margins), (margins.detach() > 0).float()

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        return super().blank(config, 2 * rows, bounds) | {"beta": torch.tensor(bounds.beta)}


def _reference(net: Any) -> AbstractContextManager[Any]:
    """The model without its adapter; where a plan measures one that has none, itself."""
    held = getattr(net, "module", net)  # DeepSpeed's engine is around it
    return held.disable_adapter() if hasattr(held, "disable_adapter") else nullcontext()


def _chances(net: Any, given: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """The log probability of each row's answer, shape (rows,)."""
    import torch

    logits = net(**given, use_cache=given["input_ids"].is_meta).logits[:, -wanted.shape[1] :]
    each = torch.nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), wanted[:, 1:], reduction="none")
    return -each.sum(1)


TASK: Task = PreferenceTuning()
