"""The spec's reference for people, made from the spec's own models."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticUndefined, to_json

from .spec import Part, Spec

_HEAD = """\
# The spec

Made by `rehone schema --markdown`; a test compares the two. Unknown keys are refused. `--set KEY=VALUE` overrides one.

| key | default | what it is |
|---|---|---|"""


def markdown() -> str:
    """One table row for each key that holds a value."""
    return "\n".join([_HEAD, *_rows(Spec, "")])


def _rows(model: type[Part], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Part):
            rows += _rows(kind, f"{prefix}{name}.")
        else:
            default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            rows.append(f"| `{prefix}{name}` | {_shown(default)} | {field.description or ''} |")
    return rows


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    return f"`{to_json(default, exclude_none=True).decode()}`"
