"""Sentence embeddings: what belongs together lies near. Learned from pairs of an input and the text that belongs to it.

Each row's other candidates are the texts of the other rows of its micro-batch ("in-batch negatives", Henderson et al.
2017; the scaled cosine is Reimers & Gurevych's, 2019), so the loss depends on how rows come together, as no other
task's does. An answer is the nearest of the texts that the data had, its embedding the mean over tokens, of length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from jobs.targets import passage
from jobs.targets.passage import AT
from jobs.training.columns import Ragged

from . import classification
from .task import Bounds, Encoded, Output, Task, no_explanation
from .text_classification import TextClassification

if TYPE_CHECKING:
    import torch

_SCALE = 20.0  # of cosines, as sentence-transformers has it
_ROWS = 64  # known texts that are embedded at a time

_known: WeakKeyDictionary[Any, tuple[tuple[str, ...], torch.Tensor]] = WeakKeyDictionary()
"""The embeddings of the texts that can be found, by the network that made them: weights that answer do not change."""


@dataclass(frozen=True)
class Pairs:
    """Token ids of inputs and of what belongs to them, which is the text with that place in the known ones."""

    ids: Ragged
    others: Ragged
    places: NDArray[np.int64]
    pad: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.maximum(self.ids.lengths, self.others.lengths)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` of shape (2 x rows, longest), the inputs first; `labels` of shape (rows,)."""
        import torch

        from jobs.training import batches

        both = [self.ids[i] for i in rows] + [self.others[i] for i in rows]
        tokens, mask = batches.padded(both, self.pad)
        return {"input_ids": tokens, "attention_mask": mask, "labels": torch.from_numpy(self.places[list(rows)])}


class SentenceSimilarity(TextClassification):
    targets = passage
    head = ()

    def auto(self) -> Any:
        from transformers import AutoModel

        return AutoModel

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        del labels  # the texts are known, not weighed
        return {}

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        from jobs.training import batches

        places = classification.places(targets, labels)
        made = batches.encode(processor, inputs, None, bounds.input)
        if places is None or targets is None:
            return made
        others = batches.encode(processor, targets, None, bounds.input)
        return Pairs(made.ids, others.ids, np.asarray(places, dtype=np.int64), made.pad)

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy of each row over the micro-batch's texts, and whether its own is the nearest."""
        import torch

        places = batch["labels"]
        given = {name: part for name, part in batch.items() if name != "labels"}
        inputs, others = self.embed(net(**given), given).chunk(2)
        near = _SCALE * inputs @ others.T
        own = torch.arange(len(places), device=places.device)
        # The same text in another row is no wrong answer.
        twins = (places[:, None] == places) & (own[:, None] != own)
        near = near.masked_fill(twins, -torch.inf)
        each = torch.nn.functional.cross_entropy(near, own, reduction="none")
        return each, (near.detach().argmax(-1) == own).float()

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        """The nearest of the known texts; `scores` are those of the nearest ten."""
        embedded = self.embed(net(**batch), batch)
        shares, places = (
            (_SCALE * embedded @ self._corpus(net, processor, labels, bounds).T).softmax(-1).topk(min(AT, len(labels)))
        )
        made = []
        for row, near, embedding in zip(shares.tolist(), places.tolist(), embedded.cpu().numpy(), strict=True):
            scores = {labels[place]: share for place, share in zip(near, row, strict=True)}
            made.append(Output(labels[near[0]], row[0], scores, embedding))
        return made

    def embed(self, answer: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the last layer over the tokens that are no padding, of length 1, shape (rows, hidden)."""
        import torch

        last = answer.last_hidden_state.float()
        mask = batch.get("attention_mask")
        weight = torch.ones_like(last[..., :1]) if mask is None else mask.unsqueeze(-1)
        return torch.nn.functional.normalize((last * weight).sum(1) / weight.sum(1), dim=-1)

    def _corpus(self, net: Any, processor: Any, labels: Sequence[str], bounds: Bounds) -> torch.Tensor:
        """The embeddings of all known texts, (texts, hidden), made at a network's first answer."""
        import torch

        from jobs.training import batches

        held = _known.get(net)
        if held is not None and held[0] == tuple(labels):
            return held[1]
        data, device = batches.encode(processor, labels, None, bounds.input), next(net.parameters()).device
        order = np.argsort(data.lengths, kind="stable")
        parts = [
            {name: part.to(device) for name, part in data.batch(order[at : at + _ROWS]).items()}
            for at in range(0, len(order), _ROWS)
        ]
        made = torch.cat([self.embed(net(**part), part) for part in parts])
        found = made[torch.from_numpy(order.argsort()).to(device)]
        _known[net] = tuple(labels), found
        return found

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        del config
        whole = torch.zeros((2 * rows, bounds.input), dtype=torch.long)
        return {"input_ids": whole, "labels": torch.arange(rows)}

    explain = no_explanation


TASK: Task = SentenceSimilarity()
