"""What an explanation is, whatever was explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cluster.errors import UserError


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


def target(scores: Any, labels: Sequence[str], label: str | None) -> int:
    """Place of a label, of the one with the highest of `scores`, shape (labels,), when None. Raises UserError."""
    if label is None:
        return int(scores.argmax())
    if label not in labels:
        raise UserError(f"{label[:80]!r} is no label of this model", mend=f"labels are {', '.join(labels)}")
    return labels.index(label)
