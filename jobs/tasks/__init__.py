"""The tasks, by name. A new task is one file beside this one and a line in each table."""

from __future__ import annotations

METRICS: dict[str, tuple[str, ...]] = {
    "text-classification": ("accuracy", "macro_f1", "balanced_accuracy", "mcc"),
}
