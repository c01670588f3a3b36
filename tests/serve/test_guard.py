"""The guard and what is written down, over the real application on a fake model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.store.storage import Storage
from serve.http import callers
from serve.http.callers import Callers
from serve.http.guard import Bounds, Bucket, Guard
from serve.http.telemetry import Telemetry

from .test_app import PREDICT, Server

BOUNDS = Bounds(ongoing=4, rate=0, body=2000, seconds=5)
ONE = {"inputs": "what a day"}


class Seen:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.models: list[str] = []
        self.most = 0

    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((route, status))
        self.models.append(model)

    def ongoing(self, requests: int) -> None:
        self.most = max(self.most, requests)


class Front:
    """A guarded server, and what was seen of it."""

    def __init__(self, server: Server, bounds: Bounds = BOUNDS, known: Callers | None = None) -> None:
        self.server, self.seen, self.lines, self.now = server, Seen(), [], 0.0
        api = server.api
        api.add_middleware(Guard, bounds=bounds, callers=known, clock=lambda: self.now)
        api.add_middleware(Telemetry, meter=self.seen, log=self.lines.append)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.server.api, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    def ask(self, method: str, path: str, **facts: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **facts)

        return asyncio.run(asked())


@pytest.fixture
def server(tmp_path) -> Server:
    return Server(tmp_path / "spool")


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "store"))


def test_without_keys_anybody_may_ask(server):
    front = Front(server)
    answer = front.ask("POST", PREDICT, json=ONE)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "content-security-policy" not in front.ask("GET", "/docs").headers


@pytest.mark.parametrize("path", [PREDICT, "/v1/feedback", "/v1/models", "/docs", "/openapi.json", "/nothing"])
def test_with_keys_all_but_health_needs_one(server, storage, path):
    front = Front(server, known=Callers(storage, 1))
    for headers in ({}, {"Authorization": "Bearer no"}, {"X-API-Key": "rhn_000000000000_" + "a" * 43}):
        answer = front.ask("GET", path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert front.ask("GET", "/healthz").status_code == 200


def test_a_key_opens_and_only_its_own_models(server, storage):
    _, ours = callers.create(storage, "shop", ("m", "n"))
    _, theirs = callers.create(storage, "other", ("n",))
    front = Front(server, known=Callers(storage, 1))
    assert front.ask("POST", PREDICT, json=ONE, headers={"Authorization": f"Bearer {ours}"}).status_code == 200
    assert front.ask("POST", PREDICT, json=ONE, headers={"X-API-Key": ours}).status_code == 200
    assert front.ask("POST", PREDICT, json=ONE, headers={"X-API-Key": theirs}).status_code == 403
    assert json.loads(front.lines[0])["caller"] == "shop"
    assert ours not in "".join(front.lines)


def test_a_body_is_bounded_whether_it_tells_its_length_or_not(server):
    front = Front(server)
    large = json.dumps({"inputs": ["x" * 3000]}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 500):
            yield large[at : at + 500]

    headers = {"Content-Type": "application/json"}
    for content in (large, pieces()):
        answer = front.ask("POST", PREDICT, content=content, headers=headers)
        assert (answer.status_code, answer.json()) == (413, {"detail": "the body is larger than 2,000 bytes"})
    assert server.logged()["predictions"] == []


def slow(server: Server, seconds: float) -> None:
    inner = server.service._answer

    async def answer(texts):
        await asyncio.sleep(seconds)
        return await inner(texts)

    server.service._answer = answer


def test_more_than_it_can_bear_is_told_to_come_again(server):
    front = Front(server)
    slow(server, 1)

    async def many() -> list[httpx.Response]:
        async with front.client() as client:
            return await asyncio.gather(*(client.post(PREDICT, json=ONE) for _ in range(7)))

    answers = asyncio.run(many())
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 3
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
    assert front.seen.most > 4
    assert front.ask("POST", PREDICT, json=ONE).status_code == 200


def test_what_takes_too_long_is_given_up(server):
    front = Front(server, Bounds(ongoing=4, rate=0, body=2000, seconds=0.05))
    slow(server, 1)
    answer = front.ask("POST", PREDICT, json=ONE)
    assert (answer.status_code, "within 0.05 s" in answer.json()["detail"]) == (504, True)


def test_a_caller_who_asks_too_often_waits(server, storage):
    secrets = [callers.create(storage, name)[1] for name in ("a", "b")]
    front = Front(server, Bounds(ongoing=4, rate=2, body=2000, seconds=5), Callers(storage, 1))

    def ask(which: int) -> httpx.Response:
        return front.ask("POST", PREDICT, json=ONE, headers={"X-API-Key": secrets[which]})

    assert [ask(0).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(0).headers["retry-after"] == "30"
    assert ask(1).status_code == 200
    front.now += 31
    assert ask(0).status_code == 200


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 100), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(rate, gaps):
    bucket, now, taken = Bucket(rate, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        assert 0 <= wait <= 60 / rate + 1e-6
        taken += not wait
    assert taken <= rate + rate * now / 60 + 1e-6


def test_every_request_is_a_line_and_a_count(server):
    front = Front(server)
    made = front.ask("POST", PREDICT, json={"inputs": ["a", "b"]}).json()
    front.ask("POST", PREDICT, json={"inputs": []})
    front.ask("GET", "/made/up")
    first, second, third = map(json.loads, front.lines)
    assert first["prediction_ids"] == [p["prediction_id"] for p in made["predictions"]]
    assert (first["method"], first["path"], first["status"], first["version"]) == ("POST", PREDICT, 200, 7)
    assert first["ms"] > 0
    assert "prediction_ids" not in second
    assert third["status"] == 404
    route = "/v1/models/{model}/predict"
    assert front.seen.requests == [(route, 200), (route, 422), ("other", 404)]


@given(st.binary(max_size=300), st.sampled_from(["application/json", "text/plain", "application/x-pickle", ""]))
def test_no_bytes_at_all_are_a_fault_of_the_server(tmp_path_factory, raw, kind):
    front = Front(Server(tmp_path_factory.mktemp("spool")))
    for path in (PREDICT, "/v1/models/m/explain", "/v1/feedback"):
        assert 400 <= front.ask("POST", path, content=raw, headers={"Content-Type": kind}).status_code < 500


def test_openais_clients_are_refused_in_their_own_shape(server: Server) -> None:
    front = Front(server, Bounds(ongoing=8, rate=1, body=100, seconds=30))
    body = {"model": "m", "prompt": "a", "max_tokens": 0}
    answers = [front.ask("POST", "/v1/completions", json=body | {"user": user}) for user in ("a", "b", "c" * 200)]
    assert [answer.status_code for answer in answers] == [400, 429, 413]
    assert [answer.json()["error"]["type"] for answer in answers] == ["invalid_request_error"] * 3
    assert answers[1].json()["error"]["message"] == "more than 1 requests a minute"
