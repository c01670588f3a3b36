"""An explained image for eyes: the picture with its cells tinted, and the cells as coloured blocks or numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.inputs import images

from .pixels import ImageExplanation

FOR, AGAINST = (46, 160, 67), (218, 54, 51)
_SIDE = 448  # pixels a side, about, so that small pictures can be seen


def drawn(made: ImageExplanation) -> str:
    """The picture in grey under its cells, green for the label and red against it, as a `data:` URI."""
    picture = images.opened(made.input)
    scale = max(1, round(_SIDE / max(picture.size)))
    size = picture.width * scale, picture.height * scale
    grey = np.asarray(picture.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST), np.float32)
    strength = strengths(made)
    tint = np.where(strength[..., None] > 0, FOR, AGAINST).astype(np.uint8)
    colour, alpha = (np.asarray(_spread(part, size), np.float32) for part in (tint, np.abs(strength * 255)))
    share = 0.8 * alpha[..., None] / 255
    return images.encoded(Image.fromarray((grey * (1 - share) + colour * share).astype(np.uint8)))


def strengths(made: ImageExplanation) -> NDArray[np.float64]:
    """Each cell beside the strongest one, from -1 to 1; shape (rows, columns)."""
    grid = np.array(made.grid)
    most = np.abs(grid).max()
    return np.asarray(grid / most if most else grid)


def colour(strength: float) -> tuple[int, int, int]:
    """On black: a terminal has no transparency."""
    red, green, blue = (round(part * abs(strength)) for part in (FOR if strength > 0 else AGAINST))
    return red, green, blue


def _spread(cells: NDArray[np.generic], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(cells.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
