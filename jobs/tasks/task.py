"""What a task has to say; everything else in the house is the same for all of them.

A task's file is light to import: it brings torch, transformers and captum in when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from cluster.errors import UserError
from jobs.inputs import Inputs
from jobs.targets import Targets

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from jobs.explain.explanation import Explanation


@dataclass(frozen=True)
class Output:
    """A model's answer to one input. `label` is a target (`jobs/targets/`), `confidence` the chance that it is right.

    `scores`: probability of each label, in their order, where a task has such; `embedding` has shape (hidden,).
    """

    label: str
    confidence: float
    scores: dict[str, float]
    embedding: NDArray[np.float32]


class Encoded(Protocol):
    """Rows as the model takes them: a dataclass whose columns are Ragged, Texts (`jobs/training/columns.py`) or arrays.

    All columns have as many rows. What it holds beside them is the same for all rows, and can be pickled.
    """

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of each row; rows of like length go together, so that little is padding."""

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """What the model takes, and the targets of `losses` where there are any."""


class Task(Protocol):
    """One kind of model: what it reads and gives, which transformers class it is, what it learns from."""

    @property
    def inputs(self) -> Inputs: ...

    @property
    def targets(self) -> Targets: ...

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules that are new and trained whole beside an adapter."""

    def auto(self) -> Any:
        """transformers' auto class."""

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        """What a model's configuration has to hold for these labels."""

    def processor(self, folder: str | Path) -> Any:
        """What makes model inputs: a tokenizer, an image processor."""

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        """Rows to learn from or, without targets, to answer."""

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each row, and the share of its target that the model has right, both of shape (rows,).

        Each row's loss is a mean of its own, so that micro-batches add up to a global batch however they are cut.
        """

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        """One Output a row of a batch that was encoded without targets."""

    def write(self, net: Any, processor: Any, given: str, bounds: Bounds, sampling: Sampling) -> Iterator[Piece]:
        """The answer piece by piece. Raises UserError where answers are no texts that follow on an input."""

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        """A batch of the largest shape, with targets, on torch's current device."""

    def explain(
        self,
        net: Any,
        processor: Any,
        labels: Sequence[str],
        max_length: int,
        given: str,
        label: str | None,
        steps: int,
    ) -> Explanation:
        """What in an input speaks for `label`, the predicted one when None.

        Raises UserError for an unknown label, or where the task has no explanations.
        """


@dataclass(frozen=True)
class Sampling:
    """How a text is written. `temperature` 0 takes the likeliest token each time; above, `seed` makes it repeatable.

    `most` tokens at most; `top_p`: share of the probability that tokens are drawn from (Holtzman et al. 2020); it ends
    before the first of `stop` that it would write.
    """

    most: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next part of a text that is being written; `text` may be empty. The last one has `ended`.

    `ended`: "stop" or, at the end of `Sampling.most`, "length"; then `output` is the whole. Tokens are counted so far.
    """

    text: str
    read: int
    written: int
    ended: str | None = None
    output: Output | None = None


@dataclass(frozen=True)
class Bounds:
    """Tokens of an input and of an answer that is a text; longer ones are cut.

    `beta`: how strongly preferences hold a model to its reference. `packing`: whether rows to learn from are put one
    after another.
    """

    input: int
    answer: int
    beta: float = 0.1
    packing: bool = False


def no_explanation(self: Any, *given: Any, **_: Any) -> NoReturn:  # noqa: ARG001 - a method of tasks
    """The `explain` of tasks whose answer has no single score that parts of the input could speak for."""
    raise UserError("the task has no explanations", mend="they are of tasks whose answer is one label")


def writes_nothing(
    self: Any,  # noqa: ARG001 - a method of tasks
    net: Any,  # noqa: ARG001
    processor: Any,  # noqa: ARG001
    given: str,  # noqa: ARG001
    bounds: Bounds,  # noqa: ARG001
    sampling: Sampling,  # noqa: ARG001
) -> Iterator[Piece]:
    """The `write` of tasks that do not write on."""
    raise UserError("the model writes no texts", mend="ask /v1/models/MODEL/predict")
