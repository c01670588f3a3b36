"""On Ray Serve: one deployment whose replicas hold both the HTTP application and the engine.

One deployment rather than two, since Serve's own hop costs more than a small model's answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
from ray import serve
from ray.serve.context import _get_global_client

from cluster.errors import ClusterError
from cluster.registry import Registry
from cluster.session import free_port, worker_environment
from cluster.settings import Settings
from cluster.storage import Storage
from jobs.data import intake
from jobs.spec import Spec

from . import app, compiled, engine
from .app import Limits
from .callers import Callers
from .engine import Answered, Engine, Load
from .follower import AliasFollower
from .guard import Bounds, Guard
from .node import Aliases
from .predictions import tables
from .service import Service
from .spool import Flusher, Spool
from .telemetry import RayMeter, Telemetry, access
from .traffic import Lane, Traffic

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "rehone"
_START_SECONDS = 180.0


@serve.deployment
@serve.ingress()
class Server:
    """A replica. Its engines follow champion and canary; its spool moves to the log every `flush_seconds`."""

    def __init__(self, spec: Spec, settings: Settings, load: Load | None = None) -> None:
        import torch

        torch.set_num_threads(1)
        # A pool in each replica would hold more connections than a database grants, for a question now and then.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        storage, folder = Storage.from_settings(settings), settings.spool_root
        loader = load or compiled.loader(spec.serving.engine)
        poll = spec.serving.poll_seconds
        aliases = Aliases(Registry(settings), folder / "aliases", poll)
        self._follower = AliasFollower(aliases, spec.name, poll, lambda v, path: engine.load(v, path, loader))
        self._follower.start()
        spool = Spool(folder)
        self._flusher = Flusher(spool, folder, tables(storage), spec.serving.flush_seconds)
        self._service = Service(
            spec.name,
            spool,
            lambda: self._follower.engine,
            self._answer,
            take=intake.taker(spec),
            explain_steps=spec.serving.explain_steps,
            traffic=self._traffic(spec, spool),
        )
        self._serving = spec.serving
        self._callers = Callers(storage, spec.serving.poll_seconds) if spec.serving.auth == "keys" else None
        if self._callers is not None:
            self._callers.start()
        self._limits = Limits(spec.serving.max_inputs, spec.serving.explain_inputs, spec.serving.max_characters)
        for batch in (self._batch, self._canary_batch):
            batch.set_max_batch_size(spec.serving.max_batch_size)
            batch.set_batch_wait_timeout_s(spec.serving.batch_wait_ms / 1000)
        self._closed = False

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = app.build(self._service, self._limits, lambda: self._follower.failed)
        serving, model = self._serving, self._service.model
        bounds = Bounds(serving.max_ongoing, serving.rate_per_minute, serving.max_body_bytes, serving.timeout_seconds)
        api.add_middleware(Guard, model=model, bounds=bounds, callers=self._callers)
        api.add_middleware(Telemetry, meter=RayMeter(model), log=access.info if serving.access_log else None)
        return api

    def _traffic(self, spec: Spec, spool: Spool) -> Traffic | None:
        """None without a share for canaries: none is then loaded."""
        if not spec.serving.canary.share:
            return None
        champion = Lane(lambda: self._follower.engine, self._answer)
        canary = Lane(lambda: self._follower.canary, self._canary_answer)
        traffic = Traffic(spec.name, spec.serving.canary, champion, canary, spool.append)
        self._follower.follow_canary(lambda version, reason: traffic.refused(version.version, reason))
        return traffic

    async def _answer(self, texts: Sequence[str]) -> Answered:
        answered: Answered = await self._batch(list(texts))
        return answered

    async def _canary_answer(self, texts: Sequence[str]) -> Answered:
        answered: Answered = await self._canary_batch(list(texts))
        return answered

    @serve.batch  # type: ignore[untyped-decorator]  # Ray is untyped here
    async def _batch(self, requests: list[list[str]]) -> list[Answered]:
        """All texts of the waiting requests through one engine at once."""
        return await _through(self._follower.engine, requests)

    @serve.batch  # type: ignore[untyped-decorator]  # as above
    async def _canary_batch(self, requests: list[list[str]]) -> list[Answered]:
        return await _through(self._follower.canary, requests)

    def check_health(self) -> None:
        self._service.engine()

    def __del__(self) -> None:
        # Serve calls this once the last request has been answered.
        if not getattr(self, "_closed", True):
            self._closed = True
            self._follower.stop()
            self._flusher.stop()
            if self._callers is not None:
                self._callers.stop()


async def _through(engine: Engine | None, requests: list[list[str]]) -> list[Answered]:
    assert engine is not None
    batch = await asyncio.to_thread(engine.answer, [text for texts in requests for text in texts])
    outputs = iter(batch.outputs)
    return [replace(batch, outputs=[next(outputs) for _ in texts]) for texts in requests]


def bound(spec: Spec, settings: Settings, load: Load | None = None) -> Any:
    """What Serve runs: the spec's replicas."""
    options: dict[str, Any] = {
        "num_replicas": spec.serving.replicas,
        # More than the guard lets through: it says 429, where Serve would let requests wait.
        "max_ongoing_requests": 2 * spec.serving.max_ongoing,
        "logging_config": {"enable_access_log": False},
        "ray_actor_options": {"num_cpus": 1, "runtime_env": {"env_vars": worker_environment(settings)}},
    }
    deployment: Any = Server
    return deployment.options(**options).bind(spec, settings, load)


def start(spec: Spec, settings: Settings, port: int | None = None, load: Load | None = None) -> str:
    """Deploy on the connected Ray and give the base URL once it answers. Raises ClusterError.

    `port` overrides the spec's; 0 takes a free one. Called again, it deploys the spec as it is now, on the port it
    has: Serve's HTTP port cannot be changed while it runs.
    """
    wanted = spec.serving.port if port is None else port
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": "127.0.0.1", "port": wanted or free_port()})
    try:
        serve.run(bound(spec, settings, load), name=APPLICATION, route_prefix="/")
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
