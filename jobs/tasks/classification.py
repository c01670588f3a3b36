"""What all tasks whose answer is one label share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .task import Output

if TYPE_CHECKING:
    import torch

Embed = Callable[[Any, "dict[str, torch.Tensor]"], "torch.Tensor"]


def options(labels: Sequence[str]) -> dict[str, Any]:
    """A head for the labels, and their names."""
    names = dict(enumerate(labels))
    return {"num_labels": len(labels), "id2label": names, "label2id": {label: i for i, label in names.items()}}


def places(targets: Sequence[str] | None, labels: Sequence[str]) -> list[int] | None:
    """The place of each target in `labels`."""
    if targets is None:
        return None
    index = {label: i for i, label in enumerate(labels)}
    return [index[target] for target in targets]


def losses(net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of each row, and whether its likeliest label is the right one."""
    import torch

    labels = batch["labels"]
    logits = net(**{name: part for name, part in batch.items() if name != "labels"}).logits.float()
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return each, (logits.detach().argmax(-1) == labels).float()


def answer(net: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], embed: Embed) -> list[Output]:
    """Softmax over the labels. `embed` makes vectors (rows, hidden) of the model's answer with its hidden states."""
    import torch

    said = net(**batch, output_hidden_states=True)
    shares = torch.softmax(said.logits.float(), dim=-1).cpu().numpy()
    embeddings = embed(said, batch).cpu().numpy()
    made = []
    for row, embedding in zip(shares, embeddings, strict=True):
        best = int(row.argmax())
        scores = {label: float(share) for label, share in zip(labels, row, strict=True)}
        made.append(Output(labels[best], float(row[best]), scores, embedding))
    return made
