"""Marked spans of a text: names, parts of an address.

A word is in a span or not by the label of its first token, begin, inside or outside (BIO, Ramshaw & Marcus 1995), as
transformers' own recipe has it. Where words are is the tokenizer's word, so spans end where words do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.targets import spans
from jobs.targets.spans import Span
from jobs.training.columns import Ragged

from .task import Bounds, Encoded, Output, Task, no_explanation
from .text_classification import TextClassification

if TYPE_CHECKING:
    import torch

_SKIPPED = -100  # tokens that are no word's first one: torch's cross entropy leaves them out
_OUTSIDE, _BEGIN, _INSIDE = "O", "B-", "I-"


def tags(labels: Sequence[str]) -> list[str]:
    """What a token can be."""
    return [_OUTSIDE, *(mark + label for label in labels for mark in (_BEGIN, _INSIDE))]


@dataclass(frozen=True)
class Tokens:
    """Rows of tokens. `words`: three numbers a word, its first character, one past its last, its first token.

    `tags`: what each word is.
    """

    ids: Ragged
    words: Ragged
    tags: Ragged | None
    pad: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.ids.lengths

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (rows, longest); `labels` of the same shape to learn from, else `words`.

        `words`, (rows, most words, 3), is -1 where a row has fewer.
        """
        import torch

        from jobs.training import batches

        tokens, mask = batches.padded([self.ids[i] for i in rows], self.pad)
        words = [self.words[i].reshape(-1, 3) for i in rows]
        made = {"input_ids": tokens, "attention_mask": mask}
        if self.tags is not None:
            labels = np.full(tokens.shape, _SKIPPED)
            for at, row in enumerate(rows):
                labels[at, words[at][:, 2]] = self.tags[row]
            return made | {"labels": torch.from_numpy(labels)}
        places = np.full((len(words), max(1, *map(len, words)), 3), -1)
        for at, row in enumerate(words):
            places[at, : len(row)] = row
        return made | {"words": torch.from_numpy(places)}


class TokenClassification(TextClassification):
    targets = spans
    head = ("classifier",)

    def auto(self) -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        return super().options(tags(labels))

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        made = processor(list(inputs), truncation=True, max_length=bounds.input, return_offsets_mapping=True)
        place = {tag: at for at, tag in enumerate(tags(labels))}
        words = [_words(made.word_ids(at), offsets) for at, offsets in enumerate(made["offset_mapping"])]
        marked = None
        if targets is not None:
            found = (_tagged(row, spans.spans(target)) for row, target in zip(words, targets, strict=True))
            marked = Ragged.of([[place[tag] for tag in tagged] for tagged in found])
        flat = [[number for word in row for number in word] for row in words]
        return Tokens(Ragged.of(made["input_ids"]), Ragged.of(flat), marked, processor.pad_token_id)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy, the mean over a row's words."""
        import torch

        wanted = batch["labels"]
        logits = net(**{name: part for name, part in batch.items() if name != "labels"}).logits.float()
        logits = logits[:, -wanted.shape[1] :]  # without a learned prompt in front
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        counted = (wanted != _SKIPPED).float()
        words = counted.sum(1).clamp(min=1)
        right = (logits.detach().argmax(-1) == wanted).float() * counted
        return each.sum(1) / words, right.sum(1) / words

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        """The likeliest tag of each word; the confidence is that of all together, as if words were independent."""
        import torch

        del processor, bounds
        given = {name: part for name, part in batch.items() if name != "words"}
        said = net(**given, output_hidden_states=True)
        logits = said.logits[:, -given["input_ids"].shape[1] :]
        shares = torch.softmax(logits.float(), dim=-1).cpu().numpy()
        embeddings, known, made = self.embed(said, given).cpu().numpy(), tags(labels), []
        for row, words, embedding in zip(shares, batch["words"].cpu().numpy(), embeddings, strict=True):
            there = words[words[:, 0] >= 0]
            best = row[there[:, 2]]
            confidence = math.exp(float(np.log(best.max(1)).sum())) if len(there) else 1.0
            found = _spans(there, [known[i] for i in best.argmax(1)] if len(there) else [])
            made.append(Output(spans.joined(found), confidence, {}, embedding))
        return made

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        made = super().blank(config, rows, bounds)
        return made | {"labels": torch.zeros_like(made["input_ids"])}

    explain = no_explanation


def _words(numbers: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Of each word its first character, one past its last, and its first token."""
    words: list[tuple[int, int, int]] = []
    last = None
    for token, (number, (start, end)) in enumerate(zip(numbers, offsets, strict=True)):
        if number is not None and number == last:
            words[-1] = (words[-1][0], end, words[-1][2])
        elif number is not None:
            words.append((start, end, token))
        last = number
    return words


def _tagged(words: Sequence[tuple[int, int, int]], found: Sequence[Span]) -> list[str]:
    """A word is in the span that holds its first character."""
    made, before = [], None
    for start, _, _ in words:
        span = next((span for span in found if span.start <= start < span.end), None)
        made.append(_OUTSIDE if span is None else (_INSIDE if span == before else _BEGIN) + span.label)
        before = span
    return made


def _spans(words: NDArray[np.int64], given: Sequence[str]) -> list[Span]:
    """A word inside no span begins one: the label is likelier right than the mark."""
    made: list[Span] = []
    before = ""
    for (start, end, _), tag in zip(words.tolist(), given, strict=True):
        label = tag[2:]
        if tag.startswith(_INSIDE) and label == before:
            made[-1] = Span(made[-1].start, end, label)
        elif tag != _OUTSIDE:
            made.append(Span(start, end, label))
        before = label
    return made


TASK: Task = TokenClassification()
