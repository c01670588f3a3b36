"""What a RayService imports (`import_path: k8s.application:build`): the champion of a spec as a Serve application.

Here Serve's own configuration says where it listens and how many replicas there are; `serve/rollout.py` is the same
replica started by `rehone serve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.session import worker_environment
from cluster.settings import Settings
from jobs import specfile
from serve.rollout import Server


class Arguments(BaseModel):
    """`args` of the application in serveConfigV2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Path


def build(args: dict[str, Any]) -> Any:
    """A bound Serve application from an `Arguments` as plain values: Serve does not see the type of an annotation that
    is a string. Raises ValidationError, SpecError, UserError; a replica that finds no champion does not start.
    """
    spec, settings = specfile.load(Arguments.model_validate(args).spec), Settings.from_environment()
    deployment: Any = Server
    return deployment.options(
        num_replicas=spec.serving.replicas,
        max_ongoing_requests=4 * spec.serving.max_batch_size,
        logging_config={"enable_access_log": False},
        ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": worker_environment(settings)}},
    ).bind(spec, settings)
