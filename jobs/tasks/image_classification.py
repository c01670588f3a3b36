"""One label for an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.inputs import images
from jobs.targets import label
from jobs.training.columns import Texts

from . import classification
from .task import Bounds, Encoded, Output, Task, writes_nothing

if TYPE_CHECKING:
    import torch

    from jobs.explain.pixels import ImageExplanation


@dataclass(frozen=True)
class Pictures:
    """Opened and scaled when their batch is made: all of them at once would not fit."""

    processor: Any
    inputs: Texts
    labels: NDArray[np.int64] | None

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self.inputs), np.int64)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`pixel_values` of shape (rows, channels, height, width) and, to learn from, `labels` of shape (rows,)."""
        import torch

        pictures = [images.opened(self.inputs[i]) for i in rows]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        if self.labels is None:
            return {"pixel_values": pixels}
        return {"pixel_values": pixels, "labels": torch.from_numpy(self.labels[list(rows)])}


class ImageClassification:
    inputs, targets = images, label
    head = ("classifier",)

    def auto(self) -> Any:
        from transformers import AutoModelForImageClassification

        return AutoModelForImageClassification

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        return classification.options(labels)

    def processor(self, folder: str | Path) -> Any:
        from transformers import AutoImageProcessor
        from transformers.utils import logging

        logging.set_verbosity_error()  # that it takes Pillow where torchvision is not installed
        return AutoImageProcessor.from_pretrained(str(folder))

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        del bounds  # of tokens
        places = classification.places(targets, labels)
        return Pictures(processor, Texts.of(inputs), None if places is None else np.asarray(places, dtype=np.int64))

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return classification.losses(net, batch)

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        del processor, bounds
        return classification.answer(net, labels, batch, self.embed)

    def embed(self, answer: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """The mean of the last layer: over patches (rows, patches, hidden), or over places (rows, hidden, h, w)."""
        last = answer.hidden_states[-1].float()
        patches = 3
        return last.mean(1) if last.ndim == patches else last.flatten(2).mean(2)

    write = writes_nothing

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        import torch

        del bounds  # of tokens
        pixels = torch.zeros((rows, config.num_channels, *_sides(config.image_size)))
        return {"pixel_values": pixels, "labels": torch.zeros(rows, dtype=torch.long)}

    def explain(
        self,
        net: Any,
        processor: Any,
        labels: Sequence[str],
        max_length: int,
        given: str,
        label: str | None,
        steps: int,
    ) -> ImageExplanation:
        from jobs.explain import pixels

        del max_length  # of tokens
        return pixels.explain(net, processor, labels, given, label, steps)


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


TASK: Task = ImageClassification()
