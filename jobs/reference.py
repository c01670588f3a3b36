"""The spec's reference for people, made from the spec's own models."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args

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
        part = _part(field.annotation)
        if part is not None:
            rows += _rows(part, f"{prefix}{name}.")
        else:
            default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            rows.append(f"| `{prefix}{name}` | {_shown(default)} | {field.description or ''} |")
    return rows


def _part(kind: Any) -> type[Part] | None:
    """What a field holds where that is a part of the spec, one that may be left out too."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    known = (one for one in kinds if isinstance(one, type) and issubclass(one, Part))
    return next(known, None)


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    return f"`{to_json(default, exclude_none=True).decode()}`"
