"""What may share a base in memory: adapters of LoRA's kind, on the same base model and for the same task."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.spec import SHARING, Spec


def of(spec: Spec) -> str:
    """The same for all that may share a base with what this spec trains; "" where nothing may."""
    return _kin(spec.method.name, spec.task, spec.base_model)


def of_tags(tags: Mapping[str, str]) -> str:
    """`of`, by what is known of a registered version."""
    return _kin(tags.get("method", ""), tags.get("task", ""), tags.get("base_model", ""))


def _kin(method: str, task: str, base_model: str) -> str:
    return f"{task} on {base_model}" if method in SHARING else ""
