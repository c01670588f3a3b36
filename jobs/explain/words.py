"""Why a text got its label: integrated gradients (Sundararajan et al. 2017; captum) over the words of one text.

The path runs from the text with each token replaced by padding to the text itself, in the space of token embeddings.
captum's layer variant would put hooks on the model, which other threads answer with meanwhile; embeddings that are
passed in touch nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .explanation import Explanation, attribute

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Word:
    """`input[start:end]` and what it added to the score; below 0 it spoke against the label."""

    word: str
    start: int
    end: int
    attribution: float


@dataclass(frozen=True)
class TextExplanation(Explanation):
    """Words beyond the model's `max_length` are not there: it did not read them."""

    words: tuple[Word, ...]

    @property
    def parts(self) -> tuple[Word, ...]:
        return self.words

    def without(self, parts: Sequence[Word]) -> str:
        text = self.input
        for word in sorted(parts, key=lambda w: -w.start):
            text = text[: word.start] + text[word.end :]
        return " ".join(text.split())


@dataclass(frozen=True)
class _Encoded:
    ids: torch.Tensor
    """Shape (1, tokens)."""
    spans: tuple[tuple[int, int], ...]
    """Characters of each token."""
    words: tuple[int | None, ...]
    """The word that each token belongs to; None for the tokenizer's own marks."""


def explain(
    net: Any, tokenizer: Any, labels: Sequence[str], max_length: int, text: str, label: str | None, steps: int
) -> TextExplanation:
    """Which words speak for `label`, the predicted one when None; `steps` forward and backward passes.

    `net` is in evaluation mode and unchanged after; it may answer on other threads meanwhile. Raises UserError for an
    unknown label.
    """
    import torch

    encoded = _encode(tokenizer, text, max_length)
    device = next(net.parameters()).device
    full, empty = _embed(net, encoded, tokenizer.pad_token_id, device)

    def shares(embeddings: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=device)
        return torch.softmax(net(inputs_embeds=embeddings, attention_mask=mask).logits.float(), dim=-1)

    found = attribute(shares, full, empty, labels, label, steps)
    return TextExplanation(
        input=text,
        label=labels[found.at],
        score=found.score,
        empty_score=found.empty_score,
        gap=found.gap,
        words=_by_word(text, encoded, found.values.sum(-1).tolist()),
    )


def _encode(tokenizer: Any, text: str, max_length: int) -> _Encoded:
    import torch

    made = tokenizer(text, truncation=True, max_length=max_length, return_offsets_mapping=True)
    spans = tuple((int(start), int(end)) for start, end in made["offset_mapping"])
    return _Encoded(torch.tensor([made["input_ids"]]), spans, tuple(made.word_ids()))


def _embed(net: Any, encoded: _Encoded, pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token embeddings of the text and of the same with padding for its words, shape (1, tokens, width)."""
    import torch

    is_mark = torch.tensor([[word is None for word in encoded.words]])
    table = net.get_input_embeddings()
    with torch.no_grad():
        ids = encoded.ids.to(device)
        return table(ids), table(torch.where(is_mark.to(device), ids, pad))


def _by_word(text: str, encoded: _Encoded, by_token: Sequence[float]) -> tuple[Word, ...]:
    """Tokens of one word are summed; where it lies is from its first character to its last."""
    found: dict[int, tuple[int, int, float]] = {}
    for word, (start, end), value in zip(encoded.words, encoded.spans, by_token, strict=True):
        if word is not None:
            first, _, before = found.get(word, (start, end, 0.0))
            found[word] = first, end, before + value
    return tuple(_trimmed(text, *part) for part in found.values())


def _trimmed(text: str, start: int, end: int, value: float) -> Word:
    """Some tokenizers count the blank in front of a word as part of it."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return Word(text[start:end], start, end, value)
