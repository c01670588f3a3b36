"""A text that follows on another, by a causal language model: instruction tuning, with the loss on the answer only.

An input is what the user says, or a conversation as JSON: `[{"role": "user", "content": "..."}, ...]`. It is put into
the tokenizer's own chat template where it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jobs.inputs import texts
from jobs.targets import text
from jobs.training.columns import Ragged

from . import writing
from .task import Bounds, Encoded, Output, Piece, Sampling, Task, no_explanation
from .text_classification import TextClassification

if TYPE_CHECKING:
    from pathlib import Path

    import torch


class TextGeneration(TextClassification):
    targets = text
    head = ()

    def auto(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        del labels  # a text has none
        return {}

    def processor(self, folder: str | Path) -> Any:
        tokenizer = super().processor(folder)
        if tokenizer.pad_token_id is None:  # as GPT-2 has none: what fills up is masked, whatever it is
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        """Of an input that is too long the end is read: there is the question."""
        del labels
        ids = Ragged.of([prompt(processor, given)[-bounds.input :] for given in inputs])
        after = None if targets is None else writing.endings(processor, targets, bounds.answer)
        most = bounds.input + bounds.answer if bounds.packing else None
        return writing.Sequences(ids, after, processor.pad_token_id, joint=True, most=most)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        given = {name: part for name, part in batch.items() if name not in {"labels", "rows"}}
        owners = batch.get("rows")
        # What would be kept for a next token is not needed, but where a model is only measured: without it transformers
        # looks at positions, which are not there then. A learned prompt in front is not judged.
        logits = net(**given, use_cache=given["input_ids"].is_meta).logits[:, -batch["labels"].shape[1] :]
        return writing.losses(logits[:, :-1], batch["labels"][:, 1:], None if owners is None else owners[:, 1:])

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        del labels
        return writing.answer(net, processor, batch, bounds)

    def write(self, net: Any, processor: Any, given: str, bounds: Bounds, sampling: Sampling) -> Iterator[Piece]:
        return writing.pieces(net, processor, prompt(processor, given)[-bounds.input :], sampling)

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        del config
        tokens = torch.zeros((rows, bounds.input + bounds.answer), dtype=torch.long)
        return {"input_ids": tokens, "labels": tokens}

    explain = no_explanation


def prompt(tokenizer: Any, given: str) -> list[int]:
    """Tokens of what an answer follows on."""
    if tokenizer.chat_template is None:
        said = "\n".join(message["content"] for message in messages(given))
        return list(tokenizer(f"{said}\n")["input_ids"])
    return list(
        tokenizer.apply_chat_template(messages(given), add_generation_prompt=True, tokenize=True, return_dict=False)
    )


def messages(given: str) -> list[dict[str, str]]:
    """The conversation that an input is; of one that is no conversation the user's only message."""
    return texts.conversation(given) or [{"role": "user", "content": given}]


TASK: Task = TextGeneration()
