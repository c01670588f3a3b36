"""Images as inputs: `data:` URIs of the encoded file, so that they travel and are kept as texts are.

Read with Pillow; what cannot be opened is refused where it comes in. Clusters are k-means over small grey pictures.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, UnidentifiedImageError

from . import Change, uris

NAME, UNIT = "image", "pixels"

BRIGHTNESS, CONTRAST, SHARPNESS, PIXELS = "brightness", "contrast", "sharpness", "image size"
DESCRIPTORS = (BRIGHTNESS, CONTRAST, SHARPNESS, PIXELS)

_SIDE = 16  # of the grey picture that clusters are made from
_ROWS_A_TOPIC = 20
_MOST_PIXELS = 64_000_000  # a small file can say that it is a huge picture


def read(value: object, folder: Path) -> str:
    """A cell as a `data:` URI: it may be a path, such a URI, the bytes, or what `datasets` makes of an image."""
    raw = uris.cell(NAME, value, folder)
    return uri(raw) if raw else ""


def sent(image: str) -> str:
    """A `data:` URI that can be opened."""
    return uri(uris.payload(NAME, image))


def uri(raw: bytes) -> str:
    """The input of an encoded image. Raises ValueError when it is none that can be read."""
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"is an image of {picture.width} x {picture.height} pixels, more than 64 million")
            kind = str(picture.format).lower()
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # SyntaxError is Pillow's word for a torn PNG
        raise ValueError("is no image that can be read") from error
    return uris.made(NAME, kind, raw)


def opened(image: str) -> Image.Image:
    """The picture in three colours. Raises ValueError when the input is none."""
    try:
        with Image.open(io.BytesIO(uris.payload(NAME, image))) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError("is no image that can be read") from error


def encoded(picture: Image.Image) -> str:
    """An input that loses nothing of the picture."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return uris.made(NAME, "png", out.getvalue())


def key(image: str) -> str:
    """A digest of the colours and the size, however they were encoded."""
    if not image:
        return ""
    picture = opened(image)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def shown(image: str) -> str:
    """A name that only this image has."""
    return f"image {key(image)[:16]}" if image else ""


def size(image: str) -> int:
    """Pixels."""
    if not image:
        return 0
    with Image.open(io.BytesIO(uris.payload(NAME, image))) as picture:
        return picture.width * picture.height


def topics(images: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """A cluster for each image, the largest first: "1", "2", ...; "" for all when there are too few for two."""
    from sklearn.cluster import KMeans

    points = np.stack([_grey(image, _SIDE).ravel() for image in images]) if images else np.empty((0, 1))
    count = min(count, len(images) // _ROWS_A_TOPIC, len(np.unique(points, axis=0)))
    if count < 2:  # noqa: PLR2004 - one cluster says nothing
        return [""] * len(images)
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(points)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    names = {int(number): str(place) for place, number in enumerate(order, 1)}
    return [names[int(number)] for number in found]


def vocabulary(images: Iterable[str]) -> list[str]:  # noqa: ARG001 - nothing is to be known of them
    """Nothing."""
    return []


def describe(images: Sequence[str], vocabulary: Iterable[str] = ()) -> pd.DataFrame:  # noqa: ARG001
    """Brightness and contrast (0 to 1), mean step between neighbouring pixels (0 to 1), number of pixels."""
    rows = []
    for image in images:
        grey = _grey(image)
        steps = [np.abs(np.diff(grey, axis=axis)) for axis in (0, 1)]
        sharp = np.mean([step.mean() for step in steps if step.size] or [0.0])
        rows.append([grey.mean(), grey.std(), sharp, grey.size])
    return pd.DataFrame(rows, columns=list(DESCRIPTORS), dtype=float)


def _light(image: str, draw: random.Random) -> str:
    """A third darker or brighter."""
    return encoded(ImageEnhance.Brightness(opened(image)).enhance(draw.choice([0.7, 1.3])))


def _noise(image: str, draw: random.Random) -> str:
    """Grain of a twentieth of the range."""
    picture = np.asarray(opened(image), np.float32)
    grain = np.random.default_rng(draw.randrange(2**32)).normal(0, 255 / 20, picture.shape)
    return encoded(Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8)))


def _turn(image: str, draw: random.Random) -> str:
    """By up to ten degrees; the corners take the colour of the first pixel."""
    picture = opened(image)
    fill: Any = picture.getpixel((0, 0))
    return encoded(picture.rotate(draw.uniform(-10, 10), Image.Resampling.BILINEAR, fillcolor=fill))


CHANGES: dict[str, Change] = {"light": _light, "noise": _noise, "turn": _turn}


def _grey(image: str, side: int | None = None) -> NDArray[np.float32]:
    """Shape (height, width), or (side, side), from 0 to 1."""
    picture = opened(image).convert("L")
    picture = picture if side is None else picture.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / np.float32(255)
