"""Any number of labels for a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.targets import labels as sets

from .task import Bounds, Encoded, Output, Task, no_explanation
from .text_classification import TextClassification

if TYPE_CHECKING:
    import torch

_LIKELY = 0.5


class MultiLabelClassification(TextClassification):
    targets = sets

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        return super().options(labels) | {"problem_type": "multi_label_classification"}

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        from jobs.training import batches

        marks = None
        if targets is not None:
            names = [set(sets.parts(target)) for target in targets]
            marks = np.array([[float(label in given) for label in labels] for given in names], dtype=np.float32)
        return batches.encode(processor, inputs, marks, bounds.input)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Binary cross entropy, the mean over labels."""
        import torch

        marks = batch["labels"]
        logits = net(**{name: part for name, part in batch.items() if name != "labels"}).logits.float()
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, marks, reduction="none").mean(1)
        return each, ((logits.detach() > 0) == (marks > _LIKELY)).float().mean(1)

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        """Each label that is likelier than not; the confidence is that of the set, as if labels were independent."""
        import torch

        del processor, bounds
        said = net(**batch, output_hidden_states=True)
        shares = torch.sigmoid(said.logits.float()).cpu().numpy()
        made = []
        for row, embedding in zip(shares, self.embed(said, batch).cpu().numpy(), strict=True):
            scores = {label: float(share) for label, share in zip(labels, row, strict=True)}
            chosen = sets.joined([label for label, share in scores.items() if share > _LIKELY])
            made.append(Output(chosen, math.prod(max(s, 1 - s) for s in scores.values()), scores, embedding))
        return made

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        return super().blank(config, rows, bounds) | {"labels": torch.zeros((rows, config.num_labels))}

    explain = no_explanation


TASK: Task = MultiLabelClassification()
