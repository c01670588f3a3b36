"""What a RayService imports (`import_path: serve.application:build`): the champion of a spec as a Serve application.

Here Serve's own configuration says where it listens and how many replicas there are; `rehone serve` starts the same
replica by `rollout.start`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.settings import Settings
from cluster.store.storage import Storage
from jobs import specfile

from . import endpoint
from .endpoint import Endpoint
from .rollout import bound


class Arguments(BaseModel):
    """`args` of the application in serveConfigV2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Path
    url: str | None = None
    """What is in front of its replicas, written down so that whoever promotes a version asks one of them first."""


def build(args: dict[str, Any]) -> Any:
    """A bound Serve application from an `Arguments` as plain values: Serve does not see the type of an annotation that
    is a string. Raises ValidationError, SpecError, UserError; a replica that finds no champion does not start.
    """
    arguments, settings = Arguments.model_validate(args), Settings.from_environment()
    spec = specfile.load(arguments.spec)
    if arguments.url is not None:
        endpoint.record(Storage.from_settings(settings), Endpoint.of(spec, arguments.url, None))
    return bound(spec, settings)
