"""How the figures of several runs are told."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence


def spread(values: Sequence[float], form: str, middle: Callable[[Sequence[float]], float] = statistics.median) -> str:
    """The median, or another middle, and in brackets the lowest and highest; of one run its figure alone.

    `form` is what one figure looks like, such as `{:.2f}x`.
    """
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(middle(values))} [{form.format(min(values))}, {form.format(max(values))}]"
