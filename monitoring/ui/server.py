"""The page over HTTP: who has the token may look and act.

The token comes once in the URL, as Jupyter has it, and is kept in a cookie that no script reads and no other site's
request carries. What is drilled down to, reports and cards, holds texts of strangers: it is sent as a sandbox of its
own, which can neither read the page nor ask for anything.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, StrictUndefined

from cluster.console import say
from cluster.errors import NotFoundError, RehoneError, UserError
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import hold, promotion
from monitoring.journal import Journal

from .overview import Overview, gather
from .timeline import svg

COOKIE = "rehone"
_MOST_FORM, _MOST_WHY = 4096, 200  # bytes of a form, characters of a reason
Look = Callable[[Spec, Place], Overview]
_KEY = re.compile(r"[1-9][0-9]*-[0-9]+")
_PAGE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{}'; connect-src 'self'; form-action 'self'; "
_PAGE += "img-src data:; frame-ancestors 'none'; base-uri 'none'"
_REPORT = "sandbox allow-scripts; default-src 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'none'"
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}


def build(spec: Spec, place: Place, token: str, look: Look = gather) -> FastAPI:
    """The application. `look` gathers what is shown."""
    api = FastAPI(title="rehone", openapi_url=None)
    api.middleware("http")(_guard(token))
    api.add_exception_handler(RehoneError, _refused)
    api.include_router(_shown(spec, place, look))
    api.include_router(_acted(spec, place))
    return api


def _guard(token: str) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.query_params.get("token", "")
        if request.method == "GET" and _same(given, token):
            # Out of the address bar, and out of what is copied from there.
            let_in = RedirectResponse(request.url.path, 303, _HEADERS)
            let_in.set_cookie(COOKIE, token, httponly=True, samesite="strict")
            return let_in
        if not _same(request.cookies.get(COOKIE, ""), token):
            return JSONResponse({"detail": "open the address that `rehone ui` has printed"}, 401, _HEADERS)
        if request.method != "GET" and not _own(request):
            return JSONResponse({"detail": "another site's page has asked for this"}, 403, _HEADERS)
        made = await answer(request)
        made.headers.update(_HEADERS)
        return made

    return guard


def _shown(spec: Spec, place: Place, look: Look) -> APIRouter:
    """The page, and what it drills down to."""
    routes = APIRouter()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    )

    @routes.get("/")
    def page() -> HTMLResponse:
        nonce, found = secrets.token_urlsafe(16), look(spec, place)
        text = template.render(o=found, timeline=svg(found), window=spec.monitoring.window, nonce=nonce)
        return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE.format(nonce)})

    @routes.get("/windows/{key}")
    def window(key: str) -> HTMLResponse:
        return _report(place, f"drift/{spec.name}/{_known(key)}-summary.html")

    @routes.get("/reports/{key}")
    def report(key: str) -> HTMLResponse:
        return _report(place, f"drift/{spec.name}/{_known(key)}.html")

    @routes.get("/cards/{version}")
    def card(version: int) -> HTMLResponse:
        folder = place.registry.download(place.registry.get(spec.name, version))
        return HTMLResponse((folder / "card.html").read_text("utf-8"), headers={"Content-Security-Policy": _REPORT})

    return routes


def _acted(spec: Spec, place: Place) -> APIRouter:
    """What a person may do."""
    routes = APIRouter()

    @routes.post("/pause")
    async def pause(request: Request) -> Response:
        (why,) = parse_qs((await request.body())[:_MOST_FORM].decode(errors="replace")).get("why", [""])[:1]
        await run_in_threadpool(hold.pause, Journal(place.storage), spec.name, why[:_MOST_WHY])
        return _back()

    @routes.post("/resume")
    def resume() -> Response:
        hold.resume(Journal(place.storage), spec.name)
        return _back()

    @routes.post("/promote/{version}")
    def promote(version: int) -> Response:
        promotion.promote(spec.name, version, place)
        return _back()

    @routes.post("/rollback")
    def rollback() -> Response:
        promotion.roll_back(spec.name, place)
        return _back()

    return routes


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 404 if isinstance(error, NotFoundError) else 409)


def run(spec: Spec, place: Place, host: str, port: int) -> None:
    """Until Ctrl-C or SIGTERM. Raises UserError where the port is taken."""
    import uvicorn

    token = os.environ.get("REHONE_UI_TOKEN") or secrets.token_urlsafe(24)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(
            f"cannot listen: {error.strerror}", where=f"{host}:{port}", mend="--port 0 takes a free one"
        ) from None
    shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - the user's own choice, told as an address
    print(f"http://{shown}:{listening.getsockname()[1]}/?token={token}", flush=True)
    say("the page of the loop is there until Ctrl-C; whoever has the address may act")
    server = uvicorn.Server(uvicorn.Config(build(spec, place, token), log_level="warning"))
    server.run(sockets=[listening])


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _own(request: Request) -> bool:
    """Whether the page itself has sent this. Browsers say where a POST is from."""
    origin = request.headers.get("origin")
    return origin is None or origin == str(request.base_url).rstrip("/")


def _known(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise NotFoundError(f"{key[:40]!r} is no window")
    return key


def _report(place: Place, path: str) -> HTMLResponse:
    return HTMLResponse(place.storage.read_bytes(path), headers={"Content-Security-Policy": _REPORT})


def _back() -> Response:
    return RedirectResponse("/", 303)
