"""Before a request reaches the application: whose it is, whether it may ask, how often, how large and for how long.

One ASGI layer. `/healthz` is let through, since what restarts servers has no key, and so is what a promotion asks,
which has a ticket (`tickets.py`) and takes as long as loading a model. Where callers are asked who they are everything
else needs a key or a token, the documentation too; which models it is for is asked where one is named (`may_ask`).
Rates are counted a replica: with n replicas a caller gets up to n times as many.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import RehoneError
from serve.versions import tickets

from . import openai_routes
from .callers import Caller, Known, RefusedError

OPEN = frozenset({"/healthz"})
_DOCS = frozenset({"/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"})
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_MOST_CALLERS = 10_000  # whose rates are remembered


@dataclass(frozen=True)
class Bounds:
    """Of one replica. `rate` is in requests a minute and caller, 0 for any; `seconds` is how long one may take."""

    ongoing: int
    rate: float
    body: int
    seconds: float


@dataclass
class Bucket:
    """A token bucket: `rate` a minute, as many at once."""

    rate: float
    at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.rate

    def take(self, now: float) -> float:
        """0 when there was a token, else the seconds until there is one."""
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate / 60)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) * 60 / self.rate


class Guard:
    """Answers 401, 413, 429, 503 and 504 itself. `callers` is None where nobody is asked who they are."""

    def __init__(
        self,
        app: ASGIApp,
        bounds: Bounds,
        callers: Known | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._bounds, self._callers, self._clock = app, bounds, callers, clock
        self._ongoing = 0
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _with_headers(send, scope["path"])
        if scope["path"] in OPEN or tickets.takes(scope["path"]):
            await self._app(scope, receive, sent)
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, sent)
            return
        self._ongoing += 1
        try:
            await self._within(scope, receive, sent)
        finally:
            self._ongoing -= 1

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        caller = (scope.get("client") or ("",))[0]
        if self._callers is not None:
            try:
                known = await self._callers.who(_secret(headers))
            except RefusedError as error:
                return _problem(scope, 401, str(error), {"WWW-Authenticate": "Bearer"})
            except RehoneError as error:
                return _problem(scope, 503, str(error), {"Retry-After": "1"})
            _remember(scope, known)
            caller = known.id
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._bounds.body:
            return _problem(scope, 413, self._too_large())
        if self._ongoing >= self._bounds.ongoing:
            said = f"{self._ongoing} requests are being answered; try again"
            return _problem(scope, 429, said, {"Retry-After": "1"})
        return self._too_often(scope, caller)

    def _too_often(self, scope: Scope, caller: str) -> JSONResponse | None:
        if not self._bounds.rate:
            return None
        now = self._clock()
        if caller not in self._buckets:
            if len(self._buckets) >= _MOST_CALLERS:
                del self._buckets[min(self._buckets, key=lambda known: self._buckets[known].at)]
            self._buckets[caller] = Bucket(self._bounds.rate, now)
        wait = self._buckets[caller].take(now)
        if not wait:
            return None
        said = f"more than {self._bounds.rate:g} requests a minute"
        return _problem(scope, 429, said, {"Retry-After": str(math.ceil(wait))})

    def _too_large(self) -> str:
        return f"the body is larger than {self._bounds.body:,} bytes"

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._bounds.seconds):
                await self._app(scope, self._counted(receive), sending)
        except TimeoutError:
            if begun:
                raise
            said = f"no answer within {self._bounds.seconds:g} s; one may be in the prediction log"
            await _problem(scope, 504, said)(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """A body that does not say its length is counted as it comes."""
        total = 0

        async def receiving() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._bounds.body:
                raise HTTPException(413, self._too_large())
            return message

        return receiving


def _secret(headers: Headers) -> str:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


def may_ask(scope: Scope, model: str) -> bool:
    """Whether whoever asks may ask this model; anybody may where nobody is asked who they are."""
    known: Caller | None = scope.get("state", {}).get("asks")
    return known is None or known.may_ask(model)


def _remember(scope: Scope, caller: Caller) -> None:
    """For who writes down what was asked, and for `may_ask`."""
    scope.setdefault("state", {}).update(caller=caller.name, asks=caller)


def _problem(scope: Scope, status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    theirs = scope["path"] in openai_routes.PATHS
    return JSONResponse(
        openai_routes.problem(status, detail) if theirs else {"detail": detail}, status, headers=headers
    )


def _with_headers(send: Send, path: str) -> Send:
    """The documentation loads its scripts from elsewhere: it has no policy."""
    added: dict[bytes, Any] = dict(_HEADERS) | ({} if path in _DOCS else dict([_POLICY]))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *((n, v) for n, v in added.items() if n not in known)]
        await send(message)

    return sending
