"""On Ray Serve: one deployment whose replicas hold both the HTTP application and the engine.

One deployment rather than two, since Serve's own hop costs more than a small model's answer.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from ray import serve
from ray.serve.context import _get_global_client

from cluster.errors import ClusterError
from cluster.session import free_port, worker_environment
from cluster.settings import Settings
from cluster.store.registry import ModelVersion, Registry
from cluster.store.storage import Storage
from jobs.models.adapters import Base
from jobs.spec import ServingSpec, Spec
from serve.engines.batching import Batcher
from serve.engines.engine import Engine, Load
from serve.http.app import Limits
from serve.http.callers import Callers
from serve.http.guard import Bounds, Guard
from serve.http.telemetry import RayMeter, Telemetry, access, ray_shadows
from serve.log.predictions import tables
from serve.log.spool import Flusher, Spool
from serve.many.adapters import Adapters
from serve.many.catalogue import Catalogue
from serve.many.hosted import Replica
from serve.many.models import Models, One
from serve.versions.tickets import Tickets
from serve.versions.witness import Witness

from . import tracing
from .engines import choice, engine
from .http import app, issuer
from .many import hosted, kin
from .node import Aliases
from .versions import witness

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "rehone"
_START_SECONDS = 180.0
_LOOK_BACK = 12.0  # seconds of requests by which replicas are added or end; they are counted every 10


@serve.deployment
@serve.ingress()
class Server:
    """A replica. Its engines follow champions and canaries; its spool moves to the log every `flush_seconds`."""

    def __init__(self, spec: Spec, settings: Settings, load: Load | None = None) -> None:
        import torch

        torch.set_num_threads(1)
        # A pool in each replica would hold more connections than a database grants, for a question now and then.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        storage, folder = Storage.from_settings(settings), settings.spool_root
        kept, registry, serving = choice.home(folder), Registry(settings), spec.serving
        loader = load or _loader(spec, kept)

        def admit(version: ModelVersion, files: Path) -> Engine:
            return engine.load(version, files, loader)

        most, self._trace = serving.max_batch_size, tracing.from_environment(spec.name)
        self._batches = Batcher("champion", most, self._trace), Batcher("canary", most, self._trace)
        spool = Spool(folder)
        aliases = Aliases(registry, folder / "aliases", serving.poll_seconds)
        replica = Replica(aliases, admit, *self._batches, spool, serving, self._trace, ray_shadows())
        own = hosted.own(spec, replica)
        own.follower.start()
        self._flusher = Flusher(spool, folder, tables(storage), serving.flush_seconds)
        self._models: Models = One(own.service, own.follower)
        if serving.adapters.most:
            catalogue = Catalogue(registry, kin.of(spec), serving.poll_seconds)
            self._models = adapters = Adapters(own, replica, catalogue, serving.adapters)
            adapters.start()
        self._name, self._serving = spec.name, serving
        self._tickets = Tickets(storage)
        self._witness = Witness(registry, admit, kept, self._models.fits, self._models.engines)
        with_keys = spec.serving.auth.startswith("keys")
        self._callers = Callers(storage, spec.serving.poll_seconds) if with_keys else None
        self._known = issuer.known(spec.serving.jwt, self._callers)
        if self._callers is not None:
            self._callers.start()
        self._limits = Limits(spec.serving.max_inputs, spec.serving.explain_inputs, spec.serving.max_characters)
        self._closed = False

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = app.build(self._models, self._limits)
        serving = self._serving
        api.include_router(witness.router(self._witness, self._tickets))
        bounds = Bounds(serving.max_ongoing, serving.rate_per_minute, serving.max_body_bytes, serving.timeout_seconds)
        api.add_middleware(Guard, bounds=bounds, callers=self._known)
        log = access.info if serving.access_log else None
        api.add_middleware(Telemetry, meter=RayMeter(self._name), log=log, trace=self._trace)
        return api

    def check_health(self) -> None:
        self._models.ready()

    def __del__(self) -> None:
        # Serve calls this once the last request has been answered.
        if not getattr(self, "_closed", True):
            self._closed = True
            for batches in self._batches:
                batches.stop()
            self._models.stop()
            self._flusher.stop()
            if self._callers is not None:
                self._callers.stop()
            self._trace.stop()


def _loader(spec: Spec, kept: Path) -> Load:
    if spec.serving.adapters.most:
        return Base(spec.base_model, spec.task).load
    return choice.loader(spec.serving.engine, kept, spec.serving.vllm)


def bound(spec: Spec, settings: Settings, load: Load | None = None, *, surge: bool = False) -> Any:
    """What Serve runs: the spec's replicas. With `surge` one more of them while another spec takes the place of one:
    the old ones answer until the new ones do.
    """
    options: dict[str, Any] = {
        **_replicas(spec.serving),
        "max_surge_percent": int(surge),  # of the replicas, rounded up
        # More than the guard lets through: it says 429, where Serve would let requests wait.
        "max_ongoing_requests": 2 * spec.serving.max_ongoing,
        "logging_config": {"enable_access_log": False},
        "ray_actor_options": {
            "num_cpus": 1,
            "num_gpus": spec.serving.gpus,
            "runtime_env": {"env_vars": worker_environment(settings) | _devices(spec.serving)},
        },
    }
    deployment: Any = Server
    return deployment.options(**options).bind(spec, settings.of_replica(), load)


def _devices(serving: ServingSpec) -> dict[str, str]:
    """Ray hides no GPU from a process that asks for none; what others have reserved is not for it."""
    return {} if serving.gpus else {"CUDA_VISIBLE_DEVICES": ""}


def _replicas(serving: ServingSpec) -> dict[str, Any]:
    scale = serving.autoscale
    if not scale.max:
        return {"num_replicas": serving.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": scale.min,
            "max_replicas": scale.max,
            "initial_replicas": serving.first_replicas,
            "target_ongoing_requests": scale.target_ongoing,
            "look_back_period_s": _LOOK_BACK,
            "upscale_delay_s": _LOOK_BACK,
            "downscale_delay_s": scale.idle_seconds,
        }
    }


def _room(serving: ServingSpec) -> bool:
    """For one replica more. Where there is none an old one ends first: the new one would wait for ever."""
    import ray

    there = ray.available_resources()
    return all(there.get(name, 0) >= amount for name, amount in serving.bundle.items())


def start(spec: Spec, settings: Settings, port: int | None = None, load: Load | None = None) -> str:
    """Deploy on the connected Ray and give the base URL once it answers. Raises ClusterError.

    `port` overrides the spec's; 0 takes a free one. Called again, it deploys the spec as it is now, on the port it
    has: Serve's HTTP port cannot be changed while it runs.
    """
    wanted = spec.serving.port if port is None else port
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": "127.0.0.1", "port": wanted or free_port()})
    try:
        application = bound(spec, settings, load, surge=_room(spec.serving))
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise ClusterError(_reason(), where=spec.name, mend="see Serve's logs in the dashboard") from error
    url = f"http://127.0.0.1:{_get_global_client().http_config.port}"
    _wait_until_healthy(url)
    return url


def stop() -> None:
    """Answer what is in flight, flush, end. What cannot be flushed stays spooled for whoever starts next."""
    serve.shutdown()


def _reason() -> str:
    """Why no replica came up: the last line of its traceback."""
    message = serve.status().applications[APPLICATION].deployments["Server"].message
    return f"could not be served: {message.strip().splitlines()[-1]}"


def _wait_until_healthy(url: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"{url}/healthz", timeout=5.0)
        except httpx.TransportError:  # nothing listens yet
            answer = None
        if answer is not None and answer.is_success:
            return
        time.sleep(0.1)
    raise ClusterError(f"nothing healthy at {url} after {_START_SECONDS:g} s", mend="see Serve's logs in the dashboard")
