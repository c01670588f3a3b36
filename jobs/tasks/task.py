"""What a task has to say; everything else in the house is the same for all of them.

A task's file is light to import: it brings torch, transformers and captum in when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.inputs import Inputs

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from jobs.explain.explanation import Explanation


class Encoded(Protocol):
    """Rows as the model takes them."""

    @property
    def lengths(self) -> Sequence[int]:
        """Of each row; rows of like length go together, so that little is padding."""

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model, `labels` of shape (rows,) among them."""


class Task(Protocol):
    """One kind of model: what it reads, which transformers class it is, what its answers are scored by."""

    @property
    def inputs(self) -> Inputs: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules that are new and trained whole beside an adapter."""

    def auto(self) -> Any:
        """transformers' auto class."""

    def processor(self, folder: str | Path) -> Any:
        """What makes model inputs: a tokenizer, an image processor."""

    def encode(self, processor: Any, inputs: Sequence[str], labels: Sequence[int], max_length: int) -> Encoded: ...

    def embed(self, answer: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One vector an input, shape (rows, hidden), from the model's answer with its hidden states."""

    def blank(self, config: Any, rows: int, max_length: int) -> dict[str, torch.Tensor]:
        """Inputs of the right shape, on torch's current device."""

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
        """What in an input speaks for `label`, the predicted one when None. Raises UserError for an unknown label."""
