"""Spans of real requests through the real application, batcher and spool, at a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import UserError
from jobs.data import intake
from jobs.spec import Spec
from serve import tracing
from serve.engines.batching import Batcher
from serve.engines.engine import Engine
from serve.http import app
from serve.http.telemetry import Telemetry
from serve.log.spool import Spool
from serve.many.models import One
from serve.service import Service
from serve.tracing import UNTRACED, Turn

from . import fakes
from .collector import Collector, collector
from .test_app import PREDICT
from .test_guard import Seen

SECRET = "an input that nobody else may read"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Traced:
    """A server as a replica builds it, around a fake model."""

    def __init__(self, folder: Path) -> None:
        self.trace, self.predictor = tracing.from_environment("m"), fakes.FakePredictor()
        self.engine = Engine(fakes.version(7), self.predictor)
        self.batcher = Batcher("champion", 8, self.trace)
        self.spool, self.lines = Spool(folder), list[str]()
        spec = Spec.model_validate({"name": "m", "base_model": "b", "data": {"source": "x.csv"}})
        service = Service(
            "m",
            self.spool,
            lambda: self.engine,
            self.batcher.lane(lambda: self.engine),
            intake.taker(spec),
            4,
            trace=self.trace,
        )
        self.api = app.build(One(service, fakes.Follower()), app.Limits(8, 2, 1000))
        self.api.add_middleware(Telemetry, meter=Seen(), log=self.lines.append, trace=self.trace)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    def ask(self, path: str, body: object, headers: Any = None) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.post(path, json=body, headers=headers)

        return asyncio.run(asked())

    def stop(self) -> None:
        self.batcher.stop()
        self.trace.stop()


@pytest.fixture(autouse=True)
def _nobody_tries_again_afterwards() -> Iterator[None]:
    """Who exports again after a random pause moves the random numbers that a test of properties has for its own."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name == "traces" or thread.name.startswith("Otel"):
            thread.join(60)
            assert not thread.is_alive(), thread.name


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_SDK_DISABLED",
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
    ):
        monkeypatch.delenv(name, raising=False)
    with collector() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


def test_a_request_is_told_from_http_to_the_spool(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)
    answer = server.ask(PREDICT, {"inputs": [SECRET, "b"]}, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    server.stop()
    whole, queue, engine, spool = map(receiver.one, ("POST /v1/models/{model}/predict", "queue", "engine", "spool"))
    assert receiver.paths == {("/v1/traces", "application/x-protobuf")}
    assert (whole.trace, whole.parent, whole.service) == (TRACE, SPAN, "rehone")
    ids = [one["prediction_id"] for one in answer.json()["predictions"]]
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{model}/predict",
        "http.response.status_code": 200,
        "rehone.model": "m",
        "rehone.version": 7,
        "rehone.prediction_ids": ids,
    }
    assert {(span.trace, span.parent) for span in (queue, engine, spool)} == {(TRACE, whole.id)}
    assert (
        whole.start <= queue.start <= queue.end == engine.start <= engine.end <= spool.start <= spool.end <= whole.end
    )
    assert engine.attributes == {
        "rehone.model": "m",
        "rehone.version": 7,
        "rehone.engine": "torch",
        "rehone.lane": "champion",
        "rehone.batch.rows": 2,
        "rehone.batch.requests": 1,
    }
    assert spool.attributes == {"rehone.model": "m", "rehone.rows": 2}
    batch = receiver.one("batch")
    assert (batch.parent, batch.links, engine.links) == ("", ((TRACE, whole.id),), ((batch.trace, batch.id),))
    assert SECRET.encode() not in b"".join(span.raw for span in receiver.spans)
    line = json.loads(server.lines[0])
    assert (line["trace_id"], line["prediction_ids"]) == (TRACE, ids)


def test_in_a_batch_of_several_models_each_request_has_its_own(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)
    other = replace(server.engine, version=replace(server.engine.version, model="n", version=3))

    async def asked(model: str) -> Turn | None:
        with server.trace.request({"path": f"/{model}", "method": "POST", "headers": []}):
            return server.trace.turn()

    turns = [asyncio.run(asked(model)) for model in ("m", "n")]
    with server.trace.batch("champion", turns, [server.engine, other], 5):
        pass
    server.stop()
    of = [(span.attributes["rehone.model"], span.attributes["rehone.version"]) for span in receiver.named("engine")]
    assert sorted(of) == [("m", 7), ("n", 3)]
    batch = receiver.one("batch").attributes
    assert (batch["rehone.models"], batch["rehone.batch.rows"]) == (["m", "n"], 5)
    assert "rehone.model" not in batch


def test_a_batch_is_linked_to_all_whom_it_answers(receiver: Collector, tmp_path: Path) -> None:
    server, begun, go = Traced(tmp_path), threading.Event(), threading.Event()
    plain = server.predictor.__call__

    class Slow(fakes.FakePredictor):
        def __call__(self, texts: Any) -> Any:
            begun.set()
            assert go.wait(10)
            return plain(texts)

    server.engine = Engine(fakes.version(7), Slow())

    async def many() -> None:
        async with server.client() as client:
            first = asyncio.create_task(client.post(PREDICT, json={"inputs": "a"}))
            await asyncio.to_thread(begun.wait, 10)
            others = [asyncio.create_task(client.post(PREDICT, json={"inputs": ["a", "b"]})) for _ in range(3)]
            while server.batcher._queue.qsize() < 3:  # noqa: ASYNC110 - a queue of threads has no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            go.set()
            await asyncio.gather(first, *others)

    asyncio.run(many())
    server.stop()
    alone, shared = sorted(receiver.named("batch"), key=lambda span: span.start)
    roots = {span.id: span for span in receiver.named("POST /v1/models/{model}/predict")}
    assert [span.parent for span in roots.values()] == [""] * 4
    assert len({span.trace for span in [*roots.values(), alone, shared]}) == 6
    assert (len(alone.links), shared.attributes["rehone.batch.rows"], shared.attributes["rehone.batch.requests"]) == (
        1,
        6,
        3,
    )
    assert {id_ for _, id_ in alone.links + shared.links} == set(roots)
    parts = [span for span in receiver.named("engine") if span.links == ((shared.trace, shared.id),)]
    assert {(span.trace, span.parent) for span in parts} == set(shared.links)
    waits = {span.parent: span.end - span.start for span in receiver.named("queue")}
    assert all(waits[id_] >= 50e6 for _, id_ in shared.links)  # ns, behind the one that was being answered


def test_a_fault_is_told_without_what_it_says(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)
    server.predictor.fails = RuntimeError(f"cannot read {SECRET!r}")
    assert server.ask(PREDICT, {"inputs": SECRET}).status_code == 500
    server.predictor.fails = None
    assert server.ask(PREDICT, {"inputs": []}).status_code == 422
    server.stop()
    failed, refused = receiver.named("POST /v1/models/{model}/predict")
    assert (failed.failed, failed.attributes["http.response.status_code"]) == (True, 500)
    assert (refused.failed, refused.attributes["http.response.status_code"]) == (False, 422)
    assert receiver.one("engine").failed
    assert SECRET.encode() not in b"".join(span.raw for span in receiver.spans)


def test_a_text_that_is_written_is_a_forward_too(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)
    for stream in (False, True):
        body = {"model": "m", "prompt": "one two three", "stream": stream}
        assert server.ask("/v1/completions", body).status_code == 200
    server.stop()
    roots = {span.id: span for span in receiver.named("POST /v1/completions")}
    assert [span.attributes["rehone.tokens"] for span in receiver.named("engine")] == [3, 3]
    for name in ("engine", "spool"):
        assert {span.parent for span in receiver.named(name)} == set(roots)
    assert all(len(span.attributes["rehone.prediction_ids"]) == 1 for span in roots.values())


def test_a_text_that_breaks_off_is_told_as_a_fault(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)

    def breaks(given: str, sampling: Any) -> Iterator[Any]:
        yield from list(fakes.FakePredictor().write(given, sampling))[:1]
        raise RuntimeError(f"cannot go on after {given}")

    server.predictor.write = breaks  # type: ignore[method-assign]
    server.ask("/v1/completions", {"model": "m", "prompt": f"{SECRET} and more"})
    server.stop()
    assert receiver.one("engine").failed
    assert SECRET.encode() not in b"".join(span.raw for span in receiver.spans)


def test_what_the_caller_does_not_sample_is_not_sent(receiver: Collector, tmp_path: Path) -> None:
    server = Traced(tmp_path)
    server.ask(PREDICT, {"inputs": "a"}, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert json.loads(server.lines[0])["trace_id"] == TRACE
    server.ask("/healthz", None)
    server.stop()
    assert receiver.spans == []


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "00-\xff-1-01"]
)
def test_a_header_that_is_none_begins_a_trace_of_its_own(receiver: Collector, tmp_path: Path, header: str) -> None:
    server = Traced(tmp_path)
    assert server.ask(PREDICT, {"inputs": "a"}, {"traceparent": header.encode("latin-1")}).status_code == 200
    server.stop()
    whole = receiver.one("POST /v1/models/{model}/predict")
    assert (whole.parent, whole.trace != TRACE) == ("", True)


@pytest.fixture(params=["away", "silent", "broken"])
def no_receiver(request: pytest.FixtureRequest) -> Iterator[str]:
    """Nobody listens; somebody takes connections and says nothing; somebody takes spans and says 503."""
    if request.param == "away":
        yield "http://127.0.0.1:1"
    elif request.param == "silent":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        with collector(status=503) as made:
            yield made.url


@pytest.mark.long
def test_without_a_receiver_requests_are_answered_and_the_server_ends(
    no_receiver: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With OpenTelemetry's own patience, and more spans than it keeps."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", no_receiver)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
    server = Traced(tmp_path)

    async def many() -> list[int]:
        async with server.client() as client:
            return [(await client.post(PREDICT, json={"inputs": SECRET})).status_code for _ in range(50)]

    begun = time.perf_counter()
    assert asyncio.run(many()) == [200] * 50
    assert time.perf_counter() - begun < 8  # one export alone may take ten
    begun = time.perf_counter()
    server.stop()
    assert time.perf_counter() - begun < 4
    assert SECRET not in caplog.text


def test_without_an_endpoint_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    before = set(threading.enumerate())
    assert tracing.from_environment("m") is UNTRACED
    server = Traced(tmp_path)
    assert server.ask(PREDICT, {"inputs": "a"}).status_code == 200
    assert not any("Otel" in thread.name for thread in set(threading.enumerate()) - before)
    assert "trace_id" not in json.loads(server.lines[0])
    server.stop()
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            patch.setenv(name, value)
            assert tracing.from_environment("m") is UNTRACED


def test_a_protocol_that_is_not_spoken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(UserError, match="'grpc' is not spoken here"):
        tracing.from_environment("m")
