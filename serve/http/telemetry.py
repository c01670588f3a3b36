"""What is seen from outside: a line of JSON a request, and metrics that Ray exports to Prometheus.

The metrics leave by Ray's own port, which no client of the model sees; they sum over replicas.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.tracing import UNTRACED, Trace
from serve.versions.shadow import Count

access = logging.getLogger("rehone.access")

_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]


class Meter(Protocol):
    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        """`model` is "" where a request is of none."""

    def ongoing(self, requests: int) -> None: ...


class RayMeter:
    """Ray's metrics: rehone_requests, rehone_request_seconds, rehone_requests_ongoing.

    Each has the model as a tag: `model` where a request is of none.
    """

    def __init__(self, model: str) -> None:
        from ray.util import metrics

        keys = ("model", "route", "status")
        self._requests = metrics.Counter("rehone_requests", "Requests answered.", tag_keys=keys)
        self._seconds = metrics.Histogram(
            "rehone_request_seconds", "From the first byte to the last.", boundaries=_SECONDS, tag_keys=keys
        )
        self._ongoing = metrics.Gauge("rehone_requests_ongoing", "Requests being answered.", tag_keys=("model",))
        self._model = model

    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        tags = {"model": model or self._model, "route": route, "status": str(status)}
        self._requests.inc(1, tags)
        self._seconds.observe(seconds, tags)

    def ongoing(self, requests: int) -> None:
        self._ongoing.set(requests, {"model": self._model})


def ray_shadows() -> Count:
    """Ray's metric rehone_shadow_inputs: copies for shadows, by model, and whether they were answered or dropped."""
    from ray.util import metrics

    made = metrics.Counter("rehone_shadow_inputs", "Copies for a shadow.", tag_keys=("model", "outcome"))
    return lambda model, outcome, inputs: made.inc(inputs, {"model": model, "outcome": outcome})


class Telemetry:
    """The outermost ASGI layer. `log` writes a request's line, None for no lines; `trace` is told of each."""

    def __init__(
        self,
        app: ASGIApp,
        meter: Meter,
        log: Callable[[str], object] | None = access.info,
        trace: Trace = UNTRACED,
    ) -> None:
        self._app, self._meter, self._log, self._trace = app, meter, log, trace
        self._ongoing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        state = scope.setdefault("state", {})
        self._change(1)
        with self._trace.request(scope) as asked:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    asked.status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, sending)
            finally:
                self._change(-1)
                asked.route, asked.state = _route(scope), state
                note(scope, trace_id=asked.trace_id)
                self._told(scope, asked.status, time.perf_counter() - begun)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        model = str(scope["state"].get("model", ""))
        self._meter.request(model, _route(scope), status, seconds)
        if self._log is not None:
            self._log(json.dumps(_line(scope, status, seconds)))

    def _change(self, by: int) -> None:
        self._ongoing += by
        self._meter.ongoing(self._ongoing)


def note(scope: Mapping[str, object], **facts: object) -> None:
    """Add to the line of a request: its model, version and prediction ids."""
    state = scope.get("state")
    if isinstance(state, dict):
        state.update(facts)


def _route(scope: Scope) -> str:
    """The path's pattern, so that what a client makes up becomes no metric of its own."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


def _line(scope: Scope, status: int, seconds: float) -> dict[str, object]:
    client = scope.get("client")
    line = {
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "ms": round(1000 * seconds, 2),
        "client": client[0] if client else None,
    }
    state = scope.get("state", {})
    noted = ("caller", "model", "version", "prediction_ids", "trace_id")
    return line | {name: state[name] for name in noted if state.get(name) is not None}
