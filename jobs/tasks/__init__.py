"""The tasks, by name. A new one is a file beside this and a line in TASKS (`docs/tasks.md` walks through it)."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from .task import Task

TASKS = {
    "text-classification": "text_classification",
    "image-classification": "image_classification",
}


@cache
def get(name: str) -> Task:
    """Raises KeyError for a name that is not in TASKS."""
    task: Task = import_module(f"{__name__}.{TASKS[name]}").TASK
    return task
