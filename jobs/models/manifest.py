"""What a version says of itself: its `manifest.json`, which `publish.py` writes. It is read here alone.

A version outlives the code that made it. What manifests were given later has a default here, what they will be given is
left alone. A key of its spec that this code does not know is another matter: it may change what the model reads and
answers, and the version is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from cluster.errors import SpecError
from cluster.store.registry import ModelVersion
from jobs import specfile
from jobs.spec import Spec

NAME = "manifest.json"
_LATER: Mapping[str, Any] = {"parent": None, "run": "", "code": "unknown", "packages": {}, "machine": {}, "job": None}


class Files(Protocol):
    """What is asked of the registry: one file of a version."""

    def read(self, version: ModelVersion, name: str) -> bytes: ...


def read(folder: Path) -> dict[str, Any]:
    """Of a version's folder."""
    return _made((folder / NAME).read_bytes())


def of(files: Files, version: ModelVersion) -> dict[str, Any]:
    """Of a registered version, without fetching its weights. Raises NotFoundError."""
    return _made(files.read(version, NAME))


def spec(tree: Mapping[str, Any]) -> Spec:
    """The spec of a manifest, with defaults for what there was not yet. Raises SpecError for what there is no more."""
    try:
        return Spec.model_validate(tree["spec"])
    except ValidationError as error:
        raise SpecError(
            f"its spec is of another rehone ({tree['code']}): {'; '.join(specfile.lines(error))}",
            where=f"{NAME} of run {tree['run']}" if tree["run"] else NAME,
            mend="use it with the rehone that made it, or train it again",
        ) from None


def _made(data: bytes) -> dict[str, Any]:
    return {**_LATER, **json.loads(data)}
