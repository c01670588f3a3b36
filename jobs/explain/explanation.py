"""What an explanation is, whatever was explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cluster.errors import UserError

if TYPE_CHECKING:
    import torch

_AT_ONCE = 8  # steps that go through the model together: more would keep other requests waiting


class Part(Protocol):
    """A piece of an input, and what it added to the score; below 0 it spoke against the label."""

    @property
    def attribution(self) -> float: ...


@dataclass(frozen=True)
class Explanation(ABC):
    """`score` is the label's probability, `empty_score` that of an input with nothing in it.

    The attributions of all parts add up to `score - empty_score`, but for `gap` (the completeness axiom; it shrinks
    with more steps).
    """

    input: str
    label: str
    score: float
    empty_score: float
    gap: float

    @property
    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """Every part of the input that the model has read."""

    @abstractmethod
    def without(self, parts: Sequence[Any]) -> str:
        """The input with some of its parts taken out."""

    def strongest(self, count: int) -> list[Part]:
        """The parts that speak most for the label, strongest first."""
        return sorted(self.parts, key=lambda part: -part.attribution)[:count]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Attributed:
    """`values` has the shape of one input to the model; the scores are those of the label at place `at`."""

    values: torch.Tensor
    at: int
    score: float
    empty_score: float

    @property
    def gap(self) -> float:
        return float(self.values.sum()) - (self.score - self.empty_score)


def attribute(
    shares: Callable[[torch.Tensor], torch.Tensor],
    full: torch.Tensor,
    empty: torch.Tensor,
    labels: Sequence[str],
    label: str | None,
    steps: int,
) -> Attributed:
    """Integrated gradients of the probabilities `shares` on the way from `empty` to `full`, each of shape (1, ...).

    Of `label`, of the predicted one when None. Raises UserError for an unknown label.
    """
    import torch
    from captum.attr import IntegratedGradients

    with torch.no_grad():
        scores, empty_scores = shares(full)[0], shares(empty)[0]
    at = target(scores, labels, label)
    found = IntegratedGradients(shares).attribute(
        full, baselines=empty, target=at, n_steps=steps, internal_batch_size=_AT_ONCE
    )
    return Attributed(found.detach().float()[0].cpu(), at, float(scores[at]), float(empty_scores[at]))


def target(scores: Any, labels: Sequence[str], label: str | None) -> int:
    """Place of a label, of the one with the highest of `scores`, shape (labels,), when None. Raises UserError."""
    if label is None:
        return int(scores.argmax())
    if label not in labels:
        raise UserError(f"{label[:80]!r} is no label of this model", mend=f"labels are {', '.join(labels)}")
    return labels.index(label)
