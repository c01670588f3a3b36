"""One label for a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.inputs import Inputs, texts

from .task import Encoded, Task

if TYPE_CHECKING:
    import torch

    from jobs.explain.words import TextExplanation


class TextClassification:
    inputs: Inputs = texts
    metrics = ("accuracy", "macro_f1", "balanced_accuracy", "mcc")
    head = ("classifier", "score")

    def auto(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def processor(self, folder: str | Path) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder))

    def encode(self, processor: Any, inputs: Sequence[str], labels: Sequence[int], max_length: int) -> Encoded:
        from jobs import batches

        return batches.encode(processor, inputs, labels, max_length)

    def embed(self, answer: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the last layer over the tokens that are no padding."""
        weight = batch["attention_mask"].unsqueeze(-1)
        return (answer.hidden_states[-1].float() * weight).sum(1) / weight.sum(1)

    def blank(self, config: Any, rows: int, max_length: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        import torch

        # No mask: what it hides is still computed.
        return {"input_ids": torch.zeros((rows, max_length), dtype=torch.long)}

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
