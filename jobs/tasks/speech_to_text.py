"""What was said in a recording, by an encoder that hears and a decoder that writes (Whisper, Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.training.columns import Texts

from . import writing
from .speech_recognition import Recordings, SpeechRecognition
from .task import Bounds, Encoded, Output, Task

if TYPE_CHECKING:
    import torch


class SpeechToText(SpeechRecognition):
    head = ()

    def auto(self) -> Any:
        from transformers import AutoModelForSpeechSeq2Seq

        return AutoModelForSpeechSeq2Seq

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        del labels
        after = None if targets is None else writing.endings(processor.tokenizer, targets, bounds.answer)
        return Recordings(processor, Texts.of(inputs), after)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return writing.losses(net(**batch).logits, batch["labels"])

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        del labels
        return writing.answer(net, processor.tokenizer, batch, bounds)

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        frames = 2 * config.max_source_positions  # Whisper hears so many, whatever was recorded
        labels = torch.zeros((rows, bounds.answer), dtype=torch.long)
        return {"input_features": torch.zeros((rows, config.num_mel_bins, frames)), "labels": labels}


TASK: Task = SpeechToText()
