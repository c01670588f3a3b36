"""The page over HTTP: who has the token may look and act.

The token comes once in the URL, as Jupyter has it, and is kept in a cookie that no script reads and no other site's
request carries. Who acts must come from the page itself besides. What is drilled down to, reports and cards, holds
texts of strangers: it is sent as a sandbox of its own, which can neither read the page nor ask for anything.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from html import escape
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, StrictUndefined

from cluster.console import say
from cluster.errors import NotFoundError, RehoneError, UserError
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import controller, hold, promotion
from monitoring.journal import Journal

from .overview import Overview, gather
from .timeline import svg

_MOST_FORM, _MOST_WHY = 4096, 200  # bytes of a form, characters of a reason
Look = Callable[[Spec, Place], Overview]
_KEY = re.compile(r"[1-9][0-9]*-[0-9]+")
_PAGE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{}'; connect-src 'self'; form-action 'self'; "
_PAGE += "img-src data:; frame-ancestors 'none'; base-uri 'none'"
_PLAIN = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STILL = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # ours: no script of its own
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
        given, name = request.query_params.get("token", ""), cookie(request.url.port)
        if request.method == "GET" and _same(given, token):
            # Out of the address bar, and out of what is copied from there. By a page and not by a redirect: after one,
            # who has followed a link of another site comes without the cookie, which is strict.
            let_in = _said("opening", 200, head='<meta http-equiv="refresh" content="0;url=/">')
            secure = request.url.scheme == "https"
            let_in.set_cookie(name, token, httponly=True, samesite="strict", secure=secure)
            return let_in
        if not _same(request.cookies.get(name, ""), token):
            return _said("open the address that `rehone ui` has printed", 401)
        if request.method != "GET" and not _own(request):
            return _said("another site's page has asked for this", 403)
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
        return _kept(place.storage.read_bytes(f"drift/{spec.name}/{_known(key)}-summary.html"), _STILL)

    @routes.get("/reports/{key}")
    def report(key: str) -> HTMLResponse:
        return _kept(place.storage.read_bytes(f"drift/{spec.name}/{_known(key)}.html"), _REPORT)

    @routes.get("/cards/{version}")
    def card(version: int) -> HTMLResponse:
        return _kept(place.registry.read(place.registry.get(spec.name, version), "card.html"), _STILL)

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

    @routes.post("/rollback/{version}")
    def rollback(version: int) -> Response:
        # What a page shows may be old: nobody is to go back elsewhere than they read.
        if place.registry.previous(spec.name).version != version:
            raise UserError(f"version {version} is not the previous champion any more", mend="look at the page again")
        promotion.roll_back(spec.name, place, version)
        return _back()

    return routes


async def _refused(_: Request, error: Exception) -> Response:
    return _said(str(error), 404 if isinstance(error, NotFoundError) else 409)


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
    with controller.signalled():  # uvicorn raises what ended it once more
        server.run(sockets=[listening])


def cookie(port: int | None) -> str:
    """Its name. Browsers give cookies to every port of a host: two pages on one machine are not to share one."""
    return f"rehone-{port or 'default'}"


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _own(request: Request) -> bool:
    """Whether the page itself has sent this. Browsers say so; older ones, and those without HTTPS, say from where."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    # The host alone: behind what speaks HTTPS for us the scheme is another one.
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _known(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise NotFoundError(f"{key[:40]!r} is no window")
    return key


def _kept(page: bytes, policy: str) -> HTMLResponse:
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _said(text: str, status: int, head: str = "") -> HTMLResponse:
    """One line, and the way back."""
    style = "<style>:root {color-scheme: light dark} body {font: 16px/1.5 system-ui, sans-serif; margin: 2rem}</style>"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = f"<!doctype html><title>rehone</title>{meta}{head}{style}<p>{escape(text)}</p>"
    page += '<p><a href="/">to the loop</a></p>'
    return HTMLResponse(page, status, {**_HEADERS, "Content-Security-Policy": _PLAIN})


def _back() -> Response:
    return RedirectResponse("/", 303)
