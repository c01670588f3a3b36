"""One label for a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.inputs import Inputs, texts
from jobs.targets import Targets, label

from . import classification
from .task import Bounds, Encoded, Output, Task, writes_nothing

if TYPE_CHECKING:
    import torch

    from jobs.explain.words import TextExplanation


class TextClassification:
    inputs: Inputs = texts
    targets: Targets = label
    head: tuple[str, ...] = ("classifier", "score")

    def auto(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        return classification.options(labels)

    def processor(self, folder: str | Path) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder))

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        from jobs.training import batches

        return batches.encode(processor, inputs, classification.places(targets, labels), bounds.input)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return classification.losses(net, batch)

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        del processor, bounds
        return classification.answer(net, labels, batch, self.embed)

    def embed(self, answer: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the last layer over the tokens that are no padding, shape (rows, hidden)."""
        weight = batch["attention_mask"].unsqueeze(-1)
        last = answer.hidden_states[-1][:, -weight.shape[1] :]  # without a learned prompt in front
        return (last.float() * weight).sum(1) / weight.sum(1)

    write = writes_nothing

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:  # noqa: ARG002
        import torch

        # No mask: what it hides is still computed.
        whole = torch.zeros((rows, bounds.input), dtype=torch.long)
        return {"input_ids": whole, "labels": torch.zeros(rows, dtype=torch.long)}

    def explain(
        self,
        net: Any,
        processor: Any,
        labels: Sequence[str],
        max_length: int,
        given: str,
        label: str | None,
        steps: int,
    ) -> TextExplanation:
        from jobs.explain import words

        return words.explain(net, processor, labels, max_length, given, label, steps)


TASK: Task = TextClassification()
