"""Traces (OpenTelemetry): where the time of a request went, sent by OTLP over HTTP where OTEL_EXPORTER_OTLP_ENDPOINT,
or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, says so. Without one nothing is made and nothing is sent.

    POST /v1/models/{model}/predict    the request, below the caller's span where it sent a `traceparent`
      queue                            until a batch had room for it
      engine                           the forward of that batch; linked to `batch`
      spool                            the write that makes the answer one that is not lost
    batch                              a trace of its own, linked to all requests that were answered in it

Never what anybody sent or was answered: only counts, names, versions and prediction ids. Ray's own tracing is another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from cluster.errors import UserError
from jobs.tasks.task import Piece
from serve.engines.engine import Engine

_WHERE = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HOW = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PATIENCE = 2.0  # seconds for what is left to send
_UNTRACED = frozenset({"/healthz"})
_NOTED = {"model": "rehone.model", "version": "rehone.version", "prediction_ids": "rehone.prediction_ids"}
_W3C = TraceContextTextMapPropagator()


@dataclass
class Asked:
    """A request on its way. `trace_id` is None where it is not traced."""

    trace_id: str | None = None
    status: int = 500
    route: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """A request's place in a queue: its span, and when it came (Unix nanoseconds)."""

    context: Context
    came: int


class Trace(Protocol):
    """What is told of requests. Each may be asked on any thread."""

    def request(self, scope: Scope, /) -> AbstractContextManager[Asked]:
        """All of a request; whoever has begun it fills in how it ended."""

    def turn(self) -> Turn | None:
        """For the request that now waits."""

    def batch(
        self, lane: str, turns: Sequence[Turn | None], engines: Sequence[Engine], rows: int, /
    ) -> AbstractContextManager[object]:
        """The forward of a batch for those who had waited, each with the engine that answers it."""

    def writing(self, engine: Engine, pieces: Iterator[Piece], /) -> Iterator[Piece]:
        """The pieces of a text, as they are written."""

    def spool(self, model: str, rows: int, /) -> AbstractContextManager[object]:
        """The write to the spool."""

    def stop(self) -> None:
        """Send what there is, in `_PATIENCE` seconds at most."""


class Untraced:
    """Does nothing, at the price of a call."""

    _nothing = nullcontext()

    def request(self, *_: object) -> AbstractContextManager[Asked]:
        return nullcontext(Asked())

    def turn(self) -> None:
        return None

    def batch(self, *_: object) -> AbstractContextManager[object]:
        return self._nothing

    def writing(self, _: Engine, pieces: Iterator[Piece], /) -> Iterator[Piece]:
        return pieces

    def spool(self, *_: object) -> AbstractContextManager[object]:
        return self._nothing

    def stop(self) -> None:
        pass


UNTRACED = Untraced()


def from_environment(model: str) -> Trace:
    """As OpenTelemetry's variables say. Raises UserError for a protocol that is not spoken here."""
    said = os.environ
    if not any(said.get(name) for name in _WHERE):
        return UNTRACED
    if said.get("OTEL_SDK_DISABLED", "").lower() == "true" or said.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return UNTRACED
    protocol = next((said[name] for name in _HOW if said.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise UserError(f"{protocol!r} is not spoken here", where=_HOW[1], mend="set http/protobuf, or nothing")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracing(model, BatchSpanProcessor(OTLPSpanExporter()))


class Tracing:
    """Spans of one model, each sent when it has ended."""

    def __init__(self, model: str, processor: SpanProcessor) -> None:
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "rehone"})
        self._model = {"rehone.model": model}
        self._processor = processor
        self._tracer = _provider(processor, resource, None).get_tracer("rehone")
        # A batch is in a trace of its own, which no sampler may drop where one of its requests is kept.
        self._batches = _provider(processor, resource, ALWAYS_ON).get_tracer("rehone")

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Asked]:
        if scope["path"] in _UNTRACED:
            yield Asked()
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        begun = {"http.request.method": scope["method"], **self._model}
        span = self._tracer.start_span(scope["method"], _W3C.extract(headers, Context()), SpanKind.SERVER, begun)
        asked = Asked(trace.format_trace_id(span.get_span_context().trace_id))
        with _open(span), trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield asked
            finally:
                _end(span, scope["method"], asked)

    def turn(self) -> Turn | None:
        span = trace.get_current_span()
        return Turn(context.get_current(), time.time_ns()) if span.is_recording() else None

    @contextmanager
    def batch(self, lane: str, turns: Sequence[Turn | None], engines: Sequence[Engine], rows: int) -> Iterator[None]:
        known = [(turn, self._of(engine)) for turn, engine in zip(turns, engines, strict=True) if turn is not None]
        if not known:
            yield
            return
        models = sorted({engine.version.model for engine in engines})
        said = {"rehone.lane": lane, "rehone.batch.rows": rows, "rehone.batch.requests": len(turns)}
        began = time.time_ns()
        for turn, of in known:
            self._tracer.start_span("queue", turn.context, attributes=of | said, start_time=turn.came).end(began)
        links = [Link(trace.get_current_span(turn.context).get_span_context()) for turn, _ in known]
        with ExitStack() as ended:
            # Of no parent: it answers them all.
            of = known[0][1] if len(models) == 1 else {"rehone.models": models}
            whole = self._batches.start_span("batch", Context(), attributes=of | said, links=links, start_time=began)
            ended.enter_context(_open(whole))
            for turn, of in known:
                link = [Link(whole.get_span_context())]
                part = self._tracer.start_span(
                    "engine", turn.context, attributes=of | said, links=link, start_time=began
                )
                ended.enter_context(_open(part))
            yield

    def writing(self, engine: Engine, pieces: Iterator[Piece]) -> Iterator[Piece]:
        span = self._tracer.start_span("engine", attributes=self._of(engine))
        try:
            for piece in pieces:
                if piece.ended:
                    span.set_attribute("rehone.tokens", piece.written)
                yield piece
        except Exception as error:  # not that nobody reads on, which closes a generator
            _fail(span, error)
            raise
        finally:
            span.end()

    def spool(self, model: str, rows: int) -> AbstractContextManager[object]:
        return _open(self._tracer.start_span("spool", attributes={"rehone.model": model, "rehone.rows": rows}))

    def stop(self) -> None:
        # OpenTelemetry's own would try for half a minute, in which Serve kills the replica that waits for it.
        ending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_PATIENCE)

    def _of(self, engine: Engine) -> dict[str, Any]:
        version = engine.version
        return {
            "rehone.model": version.model,
            "rehone.version": version.version,
            "rehone.engine": engine.predictor.engine,
        }


def _provider(processor: SpanProcessor, resource: Resource, sampler: Any) -> TracerProvider:
    # Not the global one, which is Ray's or whoever's.
    made = TracerProvider(sampler, resource, shutdown_on_exit=False)
    made.add_span_processor(processor)
    return made


@contextmanager
def _open(span: Span) -> Iterator[None]:
    """Of an exception its type alone: what it says may be an input."""
    try:
        yield
    except BaseException as error:
        _fail(span, error)
        raise
    finally:
        span.end()


def _fail(span: Span, error: BaseException) -> None:
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def _end(span: Span, method: str, asked: Asked) -> None:
    span.update_name(f"{method} {asked.route}")
    span.set_attributes({"http.response.status_code": asked.status, "http.route": asked.route})
    span.set_attributes({_NOTED[name]: asked.state[name] for name in _NOTED if name in asked.state})
    if asked.status >= 500:  # noqa: PLR2004 - as HTTP has it, and OpenTelemetry for servers
        span.set_status(Status(StatusCode.ERROR))
