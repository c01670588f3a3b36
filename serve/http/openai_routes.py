"""What clients of OpenAI's API ask, answered by the model that is served here: chat, completions, embeddings.

What is asked for is done, or refused by a 400 that names the field; only values that change nothing are let pass. Null
is as good as nothing. A text's id is its prediction id, by which /v1/feedback takes what should have been written.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

import numpy as np
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from jobs.tasks.task import Sampling
from serve.service import Service, Written

from . import telemetry

Reach = Callable[[Request, str], Awaitable[Service]]
Key = Annotated[
    str | None,
    Header(
        max_length=256,
        description="Requests with the same key, such as a user's, get answers of the same version while a canary is "
        "on trial.",
    ),
]

PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
_CODES = {"extra_forbidden": "unknown_parameter", "unsupported_parameter": "unsupported_parameter"}
_MOST = 100_000  # tokens, which the spec's training.max_answer bounds


def listed(given: object) -> object:
    """Of one text a list of it, as inputs may be given."""
    return [given] if isinstance(given, str) else given


def _none(given: object) -> object:
    if given not in (None, 0, 0.0, False, "", [], {}):
        raise PydanticCustomError(_UNSUPPORTED, "is not supported here")
    return None


def _only(given: object) -> object:
    """Of a list of one prompt this one."""
    return given[0] if isinstance(given, list) and len(given) == 1 else given


def _joined(given: object) -> object:
    return "".join(part.text for part in _PARTS.validate_python(given)) if isinstance(given, list) else given


class Asking(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(Asking):
    type: Literal["text"]
    text: str


_PARTS = TypeAdapter(list[Part])
_UNSUPPORTED = "unsupported_parameter"
Texts = Annotated[list[str], BeforeValidator(listed, json_schema_input_type=str | list[str])]
Content = Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[Part])]
Unsupported = Annotated[None, BeforeValidator(_none, json_schema_input_type=Any)]


_Given = Annotated[str, Field(min_length=1)]
Prompt = _Given | Annotated[list[_Given], Field(min_length=1, max_length=1)]


class Asked(Asking):
    model: str
    user: str | None = Field(None, description="Whose request it is: of a user a canary answers all or nothing.")
    safety_identifier: str | None = Field(None, description="The same, as newer clients call it.")
    metadata: Unsupported = None

    @property
    def whose(self) -> str | None:
        return self.user or self.safety_identifier


class StreamOptions(Asking):
    include_usage: bool | None = None
    include_obfuscation: Unsupported = None


class TextAsked(Asked):
    """What both ways to ask for a text share."""

    max_tokens: int | None = Field(None, ge=1, description="At most training.max_answer of the spec.")
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default, takes the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1, description="1, the default, draws from all tokens.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[Texts, Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None
    prompt_cache_key: str | None = Field(None, description="Changes no answer.")

    @model_validator(mode="after")
    def _options_are_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        return self

    @property
    def tells_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, most: int | None) -> Sampling:
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(most or _MOST, self.temperature or 0.0, top_p, self.seed, tuple(self.stop or ()))


class Message(Asking):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Unsupported = None
    # What clients have in an answer that they send back.
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None

    def plain(self) -> dict[str, str]:
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class Format(Asking):
    type: Literal["text"]


class ChatAsked(TextAsked):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="As max_tokens, and before it.")
    response_format: Format | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Unsupported = None
    tool_choice: Literal["none", "auto"] | None = Field(None, description="There are no tools to choose from.")
    parallel_tool_calls: bool | None = Field(None, description="Changes nothing where there are no tools.")
    functions: Unsupported = None
    function_call: Unsupported = None
    top_logprobs: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    prediction: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    store: Unsupported = None
    service_tier: Literal["auto", "default"] | None = None

    def given(self) -> str:
        """As an input of the task: a conversation, or all that the user says where there is nothing else."""
        said = [message.plain() for message in self.messages]
        return said[0]["content"] if len(said) == 1 and said[0]["role"] == "user" else json.dumps(said)

    @property
    def key(self) -> str:
        """By which a canary is dealt to: a user, else a conversation, which is known by how it begins."""
        roles = [message.role for message in self.messages]
        first = roles.index("user") + 1 if "user" in roles else None
        return self.whose or json.dumps([message.plain() for message in self.messages[:first]])


class CompletionAsked(TextAsked):
    prompt: Annotated[str, BeforeValidator(_only, json_schema_input_type=Prompt)] = Field(min_length=1)
    logprobs: None = None  # where 0 asks for those of the tokens themselves
    echo: Unsupported = None
    best_of: Literal[1] | None = None
    suffix: Unsupported = None

    @property
    def key(self) -> str | None:
        return self.whose


class EmbeddingsAsked(Asked):
    input: Texts = Field(min_length=1)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Unsupported = None


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    """A fault as these clients read it."""

    error: Fault


# By their kind: FastAPI adds its own 422 where nothing else is said of it.
_PROBLEMS: dict[int | str, dict[str, Any]] = {kind: {"model": Problem} for kind in ("4XX", 400, 404, 503)}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, whole or as events."}
}


def router(reach: Reach, bound: Any, guarded: Iterable[int | str]) -> APIRouter:
    """`reach` is the way to what answers for a model; `bound(inputs)` raises UserError where a request carries too
    much; `guarded` are the statuses that a guard answers.
    """
    routes = APIRouter(tags=["OpenAI's API"])
    responses: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in guarded} | _PROBLEMS

    @routes.post("/v1/chat/completions", responses=responses | _STREAMED, response_model=None)
    async def chat(body: ChatAsked, request: Request, x_rehone_key: Key = None) -> Response | dict[str, Any]:
        """An answer to a conversation, streamed where asked."""
        service = await reach(request, body.model)
        bound([body.given()])
        sampling = body.sampling(body.max_completion_tokens or body.max_tokens)
        parts = _parts(service, body, body.given(), sampling, x_rehone_key or body.key)
        return await _answered(parts, body, "chat.completion", request)

    @routes.post("/v1/completions", responses=responses | _STREAMED, response_model=None)
    async def completions(
        body: CompletionAsked, request: Request, x_rehone_key: Key = None
    ) -> Response | dict[str, Any]:
        """An answer to a prompt, which is an input as /predict takes it."""
        service = await reach(request, body.model)
        bound([body.prompt])
        sampling = body.sampling(body.max_tokens)
        parts = _parts(service, body, body.prompt, sampling, x_rehone_key or body.key)
        return await _answered(parts, body, "text_completion", request)

    @routes.post("/v1/embeddings", responses=responses)
    async def embeddings(body: EmbeddingsAsked, request: Request) -> dict[str, Any]:
        """The embedding that the prediction log keeps of a text; writes nothing to it."""
        service = await reach(request, body.model)
        bound(body.input)
        made = await service.embed(body.model, body.input)
        data = [
            {"object": "embedding", "index": at, "embedding": _encoded(vector, body.encoding_format or "float")}
            for at, vector in enumerate(made.vectors)
        ]
        usage = {"prompt_tokens": made.read, "total_tokens": made.read}
        return {"object": "list", "data": data, "model": body.model, "usage": usage}

    return routes


def problem(status: int, detail: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """A fault as these clients read it."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": detail, "type": kind, "param": param, "code": code}}


def refusal(errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of what pydantic says is wrong with a body: all of it, and the field of the first."""
    named = [_named(error["loc"][1:]) for error in errors]
    said = "; ".join(f"{name or 'body'}: {error['msg']}" for name, error in zip(named, errors, strict=True))
    return problem(HTTPStatus.BAD_REQUEST, said, named[0] or None, _CODES.get(errors[0]["type"], "invalid_value"))


def _named(place: Sequence[str | int]) -> str:
    """As OpenAI writes where a field is: `messages[0].content`."""
    made = ""
    for part in place:
        made += f"[{part}]" if isinstance(part, int) and made else f".{part}" if made else str(part)
    return made


def _parts(
    service: Service, body: TextAsked, given: str, sampling: Sampling, key: str | None
) -> AsyncIterator[Written]:
    return service.write(body.model, given, sampling, key, whole=not body.stream)


async def _answered(
    parts: AsyncIterator[Written], body: TextAsked, kind: str, request: Request
) -> Response | dict[str, Any]:
    first = await anext(parts)  # what is wrong with a request is said before an answer has begun
    telemetry.note(request.scope, version=first.version, prediction_ids=[first.prediction_id])
    if body.stream:
        events = _events(first, parts, body, kind)
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    text, last = first.piece.text, first
    async for last in parts:
        text += last.piece.text
    choice = {"index": 0, "finish_reason": last.piece.ended, "logprobs": None}
    said = (
        {"message": {"role": "assistant", "content": text, "refusal": None}}
        if kind.startswith("chat")
        else {"text": text}
    )
    return {**_head(first, body.model, kind), "choices": [choice | said], "usage": _usage(last)}


async def _events(first: Written, rest: AsyncIterator[Written], body: TextAsked, kind: str) -> AsyncIterator[str]:
    chat = kind.startswith("chat")
    head = _head(first, body.model, f"{kind}.chunk" if chat else kind)

    def event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> str:
        counted = {"usage": usage} if body.tells_usage else {}
        return f"data: {json.dumps({**head, 'choices': choices, **counted})}\n\n"

    def part(delta: dict[str, str], ended: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {"index": 0, "finish_reason": ended, "logprobs": None, **said}

    if chat:
        yield event([part({"role": "assistant", "content": ""}, None)])
    last = first
    async for last in _chained(first, rest):
        # With the last piece the answer is in the log: an end that a client has seen is one that is kept.
        delta = {"content": last.piece.text} if last.piece.text else {}
        if delta or last.piece.ended:
            yield event([part(delta, last.piece.ended)])
    if body.tells_usage:
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
