"""Rows to batches: tokenised once, grouped by length so that little is padding, the same for the same seed.

Pure but for the tokenizer. Every rank sees the same number of batches, as collective training needs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .columns import Ragged

if TYPE_CHECKING:
    import torch

Lengths = Sequence[int] | NDArray[np.int64]

_BUCKET = 16  # global batches that are sorted by length together


@dataclass(frozen=True)
class Encoded:
    """Token ids of each row (ragged) and, to learn from, what is to be learned of each, shape (rows, ...)."""

    ids: Ragged
    labels: NDArray[Any] | None
    pad: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.ids.lengths

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` of shape (rows, longest) and, where known, `labels` of shape (rows, ...)."""
        import torch

        tokens, mask = padded([self.ids[i] for i in rows], self.pad)
        made = {"input_ids": tokens, "attention_mask": mask}
        return made if self.labels is None else made | {"labels": torch.from_numpy(self.labels[list(rows)])}


def padded(
    ids: Sequence[Sequence[int] | NDArray[Any]], pad: int, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens filled up with `pad`, and where they are no filling (1 or 0), both of shape (rows, longest)."""
    import torch

    longest = max(map(len, ids))
    tokens = np.full((len(ids), longest), pad, np.int64)
    mask = np.zeros((len(ids), longest), np.int64)
    for at, row in enumerate(ids):
        place = slice(longest - len(row), None) if left else slice(len(row))
        tokens[at, place] = row
        mask[at, place] = 1
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def packed(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which rows to put one after another in rows of at most `most` tokens, so that the fewest are filling.

    Of each number of rows the longest goes where there is most room (LPT, Graham 1969); the fewest rows of those
    that leave as little to fill.
    """
    best: list[list[int]] = []
    least = math.inf
    for count in range(-(-sum(lengths) // most), len(lengths) + 1):
        parts: list[list[int]] = [[] for _ in range(count)]
        room = [(0, at) for at in range(count)]
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            size, at = heapq.heappop(room)
            parts[at].append(row)
            heapq.heappush(room, (size + lengths[row], at))
        longest = max(size for size, _ in room)
        if longest <= most and count * longest < least:
            best, least = parts, count * longest
    return best


def encode(
    tokenizer: Any, texts: Sequence[str], labels: Sequence[int] | NDArray[Any] | None, max_length: int
) -> Encoded:
    """`labels` are places in the list of labels, or a row of numbers each; None for rows that are to be answered."""
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Encoded(Ragged.of(ids), None if labels is None else np.asarray(labels), tokenizer.pad_token_id)


def alike(lengths: Lengths, most: int, call: float) -> list[NDArray[np.int64]]:
    """Row numbers in parts of at most `most` rows, the shortest first, so that little of a part is padding.

    A pass costs what `call` tokens do beside its own, of which each row has as many as the longest. A part is split
    where that saves most, while it saves anything.
    """
    order, size = np.argsort(lengths, kind="stable"), np.asarray(lengths)
    return [part for at in range(0, len(order), most) for part in _split(order[at : at + most], size, call)]


def _split(rows: NDArray[np.int64], size: NDArray[np.int64], call: float) -> list[NDArray[np.int64]]:
    saved = np.arange(1, len(rows)) * (size[rows[-1]] - size[rows[:-1]]) - call
    if not len(saved) or saved.max() <= 0:
        return [rows]
    at = int(saved.argmax()) + 1
    return [*_split(rows[:at], size, call), *_split(rows[at:], size, call)]


def epoch(lengths: Lengths, global_batch: int, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each global batch of one epoch, in a random order that follows from `seed`.

    Rows of like length go together. Each row comes once: where the rows do not fill the batches, some have one fewer.
    """
    draw = np.random.default_rng(seed)
    order, steps = draw.permutation(len(lengths)), -(-len(lengths) // global_batch)
    ends = np.arange(1, steps) * len(order) // steps
    size = np.asarray(lengths)
    sorted_pools = [
        part[np.argsort(size[part], kind="stable")] for part in np.split(order, ends[_BUCKET - 1 :: _BUCKET])
    ]
    batches = np.split(np.concatenate(sorted_pools), ends)
    return [batches[i] for i in draw.permutation(steps)]


def steps(lengths: Lengths, global_batch: int, seed: int, *, begin: int, end: int) -> Iterator[NDArray[np.int64]]:
    """The global batch of each optimizer step from `begin` to `end`, over as many epochs as that takes.

    It follows from the step and the seed alone: who goes on from a step, on however many workers, sees the rows that
    were not seen.
    """
    per_epoch = -(-len(lengths) // global_batch)
    for number in range(begin // per_epoch, -(-end // per_epoch)):
        first = number * per_epoch
        yield from epoch(lengths, global_batch, seed + number)[max(begin - first, 0) : end - first]


def micro_batches(
    batch: NDArray[np.int64], rank: int, world: int, accumulation: int
) -> Iterator[tuple[NDArray[np.int64], float]]:
    """This rank's part of a global batch in `accumulation` parts, with what the mean loss of each is multiplied by.

    All ranks take as many parts, and the multiplied means average to the mean over the batch, whoever has a row more.
    A part without rows is a row that counts 0 times. Ranks get rows of like length.
    """
    mean = len(batch) / (world * accumulation)
    for part in np.array_split(batch[rank::world], accumulation):
        yield (part, len(part) / mean) if len(part) else (batch[:1], 0.0)


def shard(rows: int, rank: int, world: int, micro: int) -> Iterator[tuple[list[int], int]]:
    """Row numbers to evaluate on this rank, `micro` at a time, and how many of them count.

    Ranks without a row of their own repeat one that does not count: all ranks make as many forward passes.
    """
    share = -(-rows // world)
    end = (rank + 1) * share
    for at in range(rank * share, end, micro):
        part = range(at, min(at + micro, end))
        yield [row if row < rows else 0 for row in part], sum(row < rows for row in part)
