"""What a RayService imports (`import_path: serve.application:build`): the champion of a spec as a Serve application.

Here Serve's own configuration says where it listens and how many replicas there are; `rehone serve` starts the same
replica by `rollout.start`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.settings import Settings
from jobs import specfile

from .rollout import bound


class Arguments(BaseModel):
    """`args` of the application in serveConfigV2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Path


def build(args: dict[str, Any]) -> Any:
    """A bound Serve application from an `Arguments` as plain values: Serve does not see the type of an annotation that
    is a string. Raises ValidationError, SpecError, UserError; a replica that finds no champion does not start.
    """
    return bound(specfile.load(Arguments.model_validate(args).spec), Settings.from_environment())
