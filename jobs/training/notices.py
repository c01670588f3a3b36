"""Notices that a node is about to be taken away, as the workers of a training hear of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 2.0
"""How often workers ask: a barrier of some milliseconds."""

MOST_STEPS = 20
"""After so many they ask again in any case: steps that took a millisecond may take a second a moment later."""


class Notices:
    """Whether somebody has said since the last call that a node is to be drained: a spot machine that is taken back.

    `said` is what Ray says at this moment or None. All ranks must ask it equally often, so that they ask is decided by
    steps, and by the first rank's clock how many, which `agreed` tells the others.
    """

    def __init__(
        self, said: Callable[[], Any], agreed: Callable[[int], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._said, self._agreed, self._clock = said, agreed, clock
        self._next = 0
        self._since: tuple[int, float] | None = None
        self._last: Any = None

    def __call__(self, step: int) -> bool:
        if step < self._next:
            return False
        said, now = self._said(), self._clock()
        pace = SECONDS * (step - self._since[0]) / (now - self._since[1]) if self._since else 1.0
        self._next = step + self._agreed(min(max(1, int(pace)), MOST_STEPS))
        self._since = step, now
        new = said is not None and said != self._last
        self._last = said
        return new
