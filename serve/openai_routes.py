"""What clients of OpenAI's API ask, answered by the model that is served here: chat, completions, embeddings.

Parameters that are not supported are refused unless they have the value that changes nothing. A text is written by the
champion, never by a canary; its id is its prediction id, by which /v1/feedback takes what should have been written.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from jobs.tasks.task import Sampling

from . import telemetry
from .service import Service, Written

Reach = Callable[[Request, str], Awaitable[Service]]

PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
_MOST = 100_000  # tokens, which the spec's training.max_answer bounds


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _none(given: object) -> object:
    if given not in (None, 0, 0.0, False, [], {}):
        raise ValueError("is not supported here")
    return None


Texts = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Unsupported = Annotated[None, BeforeValidator(_none, json_schema_input_type=Any)]


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    user: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class TextAsked(Asked):
    """What both ways to ask for a text share."""

    max_tokens: int | None = Field(None, ge=1, description="At most training.max_answer of the spec.")
    temperature: float = Field(0.0, ge=0, le=2, description="0, the default, takes the likeliest token each time.")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: Texts = Field(default_factory=list, max_length=4)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Literal[1] = 1
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None

    def sampling(self, most: int | None) -> Sampling:
        return Sampling(most or _MOST, self.temperature, self.top_p, self.seed, tuple(self.stop))


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatAsked(TextAsked):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: Unsupported = None
    response_format: Unsupported = None

    def given(self) -> str:
        """As an input of the task: a conversation, or all that the user says where there is nothing else."""
        said = [message.plain() for message in self.messages]
        return said[0]["content"] if len(said) == 1 and said[0]["role"] == "user" else json.dumps(said)


class CompletionAsked(TextAsked):
    prompt: str = Field(min_length=1)
    echo: Literal[False] = False


class EmbeddingsAsked(Asked):
    input: Texts = Field(min_length=1)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Unsupported = None


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    """A fault as these clients read it."""

    error: Fault


_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 404, 422, 503)}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, whole or as events."}
}


def router(reach: Reach, bound: Any, guarded: dict[int | str, dict[str, Any]]) -> APIRouter:
    """`reach` is the way to what answers for a model; `bound(inputs)` raises UserError where a request carries too
    much; `guarded` documents what a guard answers.
    """
    routes = APIRouter(tags=["OpenAI's API"])
    responses = guarded | _PROBLEMS

    @routes.post("/v1/chat/completions", responses=responses | _STREAMED, response_model=None)
    async def chat(body: ChatAsked, request: Request) -> Response | dict[str, Any]:
        """An answer to a conversation, streamed where asked."""
        service = await reach(request, body.model)
        sampling = body.sampling(body.max_completion_tokens or body.max_tokens)
        return await _answered(service, body, body.given(), sampling, "chat.completion", request, bound)

    @routes.post("/v1/completions", responses=responses | _STREAMED, response_model=None)
    async def completions(body: CompletionAsked, request: Request) -> Response | dict[str, Any]:
        """An answer to a prompt, which is an input as /predict takes it."""
        service = await reach(request, body.model)
        sampling = body.sampling(body.max_tokens)
        return await _answered(service, body, body.prompt, sampling, "text_completion", request, bound)

    @routes.post("/v1/embeddings", responses=responses)
    async def embeddings(body: EmbeddingsAsked, request: Request) -> dict[str, Any]:
        """The embedding that the prediction log keeps of a text; writes nothing to it."""
        bound(body.input)
        service = await reach(request, body.model)
        vectors = await service.embed(body.model, body.input)
        data = [
            {"object": "embedding", "index": at, "embedding": _encoded(vector, body.encoding_format)}
            for at, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": body.model}

    return routes


def problem(status: int, detail: str) -> dict[str, Any]:
    """A fault as these clients read it."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": detail, "type": kind, "param": None, "code": None}}


async def _answered(
    service: Service, body: TextAsked, given: str, sampling: Sampling, kind: str, request: Request, bound: Any
) -> Response | dict[str, Any]:
    bound([given])
    parts = service.write(body.model, given, sampling)
    first = await anext(parts)  # what is wrong with a request is said before an answer has begun
    telemetry.note(request.scope, version=first.version, prediction_ids=[first.prediction_id])
    if body.stream:
        events = _events(first, parts, body, kind)
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    text, last = first.piece.text, first
    async for last in parts:
        text += last.piece.text
    choice = {"index": 0, "finish_reason": last.piece.ended, "logprobs": None}
    said = {"message": {"role": "assistant", "content": text}} if kind.startswith("chat") else {"text": text}
    return {**_head(first, body.model, kind), "choices": [choice | said], "usage": _usage(last)}


async def _events(first: Written, rest: AsyncIterator[Written], body: TextAsked, kind: str) -> AsyncIterator[str]:
    chat = kind.startswith("chat")
    head = _head(first, body.model, f"{kind}.chunk" if chat else kind)

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"

    def part(delta: dict[str, str], ended: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {"index": 0, "finish_reason": ended, **said}

    if chat:
        yield event([part({"role": "assistant", "content": ""}, None)])
    last = first
    async for last in _chained(first, rest):
        # With the last piece the answer is in the log: an end that a client has seen is one that is kept.
        delta = {"content": last.piece.text} if last.piece.text else {}
        if delta or last.piece.ended:
            yield event([part(delta, last.piece.ended)])
    if body.stream_options.include_usage:
        yield event([], usage=_usage(last))
    yield "data: [DONE]\n\n"


async def _chained(first: Written, rest: AsyncIterator[Written]) -> AsyncIterator[Written]:
    yield first
    async for one in rest:
        yield one


def _head(first: Written, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": first.prediction_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"version {first.version}",
    }


def _usage(last: Written) -> dict[str, int]:
    read, written = last.piece.read, last.piece.written
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _encoded(vector: np.ndarray[Any, np.dtype[np.float32]], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]
