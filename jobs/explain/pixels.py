"""Which places of an image made its label: integrated gradients (Sundararajan et al. 2017; captum) over its pixels.

The path runs from an image of one colour, the mean that the processor subtracts, to the image itself. What the pixels
add is summed over a grid of cells, laid over the picture as the model sees it: scaled, cut where its processor cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jobs.inputs import images

from .explanation import Explanation, attribute

if TYPE_CHECKING:
    import torch

GRID = 14
"""Cells a side, at most."""


@dataclass(frozen=True)
class Cell:
    """`row` from the top and `column` from the left, of the grid."""

    row: int
    column: int
    attribution: float


@dataclass(frozen=True)
class ImageExplanation(Explanation):
    """`grid[row][column]` is what the pixels of a cell added, row 0 at the top."""

    grid: tuple[tuple[float, ...], ...]

    @cached_property
    def parts(self) -> Sequence[Cell]:
        return [Cell(r, c, value) for r, row in enumerate(self.grid) for c, value in enumerate(row)]

    def without(self, parts: Sequence[Cell]) -> str:
        """The image with cells in its own mean colour."""
        picture = images.opened(self.input)
        pixels = np.array(picture)
        mean = pixels.mean((0, 1)).astype(np.uint8)
        rows, columns = (np.linspace(0, side, count + 1).round().astype(int) for side, count in self._sides(picture))
        for part in parts:
            pixels[rows[part.row] : rows[part.row + 1], columns[part.column] : columns[part.column + 1]] = mean
        return images.encoded(Image.fromarray(pixels))

    def _sides(self, picture: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
        return (picture.height, len(self.grid)), (picture.width, len(self.grid[0]))


def explain(
    net: Any, processor: Any, labels: Sequence[str], given: str, label: str | None, steps: int
) -> ImageExplanation:
    """Which cells speak for `label`, the predicted one when None; `steps` forward and backward passes.

    `net` is in evaluation mode and unchanged after. Raises UserError for an unknown label, ValueError for an input that
    is no image.
    """
    import torch

    device = next(net.parameters()).device
    full = processor(images=[images.opened(given)], return_tensors="pt")["pixel_values"].to(device)
    empty = torch.zeros_like(full)  # what the processor makes of the mean colour

    def shares(pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(net(pixel_values=pixels).logits.float(), dim=-1)

    found = attribute(shares, full, empty, labels, label, steps)
    return ImageExplanation(
        input=given,
        label=labels[found.at],
        score=found.score,
        empty_score=found.empty_score,
        gap=found.gap,
        grid=_cells(found.values.sum(0)),
    )


def _cells(by_pixel: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    """Sums over a grid of equal cells, the last ones smaller where the sides do not divide."""
    height, width = by_pixel.shape
    rows, columns = (np.linspace(0, side, min(GRID, side) + 1).round().astype(int) for side in (height, width))
    return tuple(
        tuple(float(by_pixel[top:bottom, left:right].sum()) for left, right in pairwise(columns))
        for top, bottom in pairwise(rows)
    )
