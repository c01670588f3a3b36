"""What models read. An input is a string wherever it is kept or sent: a text, or an image as a `data:` URI."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

Change = Callable[[str, random.Random], str]


class Inputs(Protocol):
    """One kind of input; `texts.py` and `images.py` are the modules that are one."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant, as are the next ones

    @property
    def UNIT(self) -> str:  # noqa: N802
        """What `size` counts."""

    @property
    def CHANGES(self) -> Mapping[str, Change]:  # noqa: N802
        """By name, what a person reads as the same and a model should too."""

    @property
    def DESCRIPTORS(self) -> tuple[str, ...]:  # noqa: N802
        """Numbers that are watched of each input, beside its embedding."""

    def read(self, value: object, folder: Path) -> str:
        """A cell of a source as an input, "" where it is missing; paths in it are relative to `folder`.

        Raises ValueError, which says what is wrong with it.
        """

    def sent(self, text: str, /) -> str:
        """An input as somebody else sends it: never a path. Raises ValueError as `read` does."""

    def key(self, text: str, /) -> str:
        """What two inputs share when they are the same to a person."""

    def shown(self, text: str, /) -> str:
        """An input for a table: the text itself, or what names an image."""

    def size(self, text: str, /) -> int: ...

    def topics(self, texts: Sequence[str], count: int, seed: int = 0, /) -> list[str]:
        """A named cluster for each input; "" for all when there are too few inputs for two."""

    def vocabulary(self, texts: Iterable[str], /) -> list[str]:
        """What `describe` needs to know of the training inputs."""

    def describe(self, texts: Sequence[str], vocabulary: Iterable[str], /) -> pd.DataFrame:
        """A row an input, a column for each of DESCRIPTORS that Evidently does not compute by itself."""
