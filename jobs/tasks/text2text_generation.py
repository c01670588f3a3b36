"""A text for a text, by an encoder and a decoder: translations, summaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.training.columns import Ragged

from . import writing
from .task import Bounds, Encoded, Output, Task, no_explanation, writes_nothing
from .text_generation import TextGeneration

if TYPE_CHECKING:
    import torch


class Text2TextGeneration(TextGeneration):
    def auto(self) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        del labels
        ids = Ragged.of(processor(list(inputs), truncation=True, max_length=bounds.input)["input_ids"])
        after = None if targets is None else writing.endings(processor, targets, bounds.answer)
        return writing.Sequences(ids, after, processor.pad_token_id, joint=False)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        # The model makes of the labels what its decoder reads: each token sees those before it.
        return writing.losses(net(**batch).logits, batch["labels"])

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        del labels
        return writing.answer(net, processor, batch, bounds)

    write = writes_nothing

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        del config
        whole, answer = ((rows, tokens) for tokens in (bounds.input, bounds.answer))
        return {"input_ids": torch.zeros(whole, dtype=torch.long), "labels": torch.zeros(answer, dtype=torch.long)}

    explain = no_explanation


TASK: Task = Text2TextGeneration()
