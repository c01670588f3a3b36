"""The tasks, by name. A new one is a file beside this and a line in TASKS (`docs/tasks.md` walks through it)."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from cluster.errors import UserError

from .task import Task

TASKS = {
    "text-classification": "text_classification",
    "multi-label-classification": "multi_label_classification",
    "token-classification": "token_classification",
    "image-classification": "image_classification",
    "speech-recognition": "speech_recognition",
    "speech-to-text": "speech_to_text",
    "text-generation": "text_generation",
    "text2text-generation": "text2text_generation",
    "preference-tuning": "preference_tuning",
    "sentence-similarity": "sentence_similarity",
}


@cache
def get(name: str) -> Task:
    """Raises KeyError for a name that is not in TASKS."""
    task: Task = import_module(f"{__name__}.{TASKS[name]}").TASK
    return task


def require_labels(name: str, what: str) -> None:
    """Raises UserError where `what` needs a task whose answer is one label, and this one has others."""
    if not get(name).targets.CLOSED:
        raise UserError(f"{what} is for tasks whose answer is one label", where=f"task {name}")
