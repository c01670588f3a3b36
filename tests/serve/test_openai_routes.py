"""OpenAI's own client against the application, over a tiny Llama that has learned nothing: what it writes is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from jobs import tasks
from jobs.data import intake
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import Spec
from jobs.tasks.task import Bounds, Sampling
from serve.engines.engine import Answered, Engine
from serve.http import app
from serve.http.openai_routes import TextAsked
from serve.log.predictions import PREDICTIONS
from serve.log.spool import Spool
from serve.many.models import One
from serve.service import Service
from tests.jobs.tasks import projects

from . import fakes
from .test_engine import Meeting
from .test_spool import tables

pytestmark = pytest.mark.anyio
BOUNDS = Bounds(48, 12)
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "219 South Dearborn"}]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    base = tmp_path_factory.mktemp("llama")
    projects.llama(base)
    task = tasks.get("text-generation")
    return Predictor(model.base(task, str(base), (), 0), task, task.processor(base), (), BOUNDS)


class Server:
    def __init__(self, folder: Path, predictor: Predictor | fakes.FakePredictor) -> None:
        self.spool = Spool(folder)
        self.engine = Engine(fakes.version(7), predictor)
        spec = Spec.model_validate({"name": "m", "base_model": "b", "data": {"source": "x.csv"}})
        service = Service("m", self.spool, lambda: self.engine, self._answer, take=intake.taker(spec), explain_steps=4)
        api = app.build(One(service, fakes.Follower()), app.Limits(predict=4, explain=2, characters=1000))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(api))
        self.client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0)

    async def _answer(self, texts: Sequence[str]) -> Answered:
        return self.engine.answer(texts)

    def logged(self) -> list[dict[str, object]]:
        into = tables()
        self.spool.flush(into)
        return into[PREDICTIONS].rows


@pytest.fixture
def server(tmp_path: Path, writer: Predictor) -> Server:
    return Server(tmp_path / "spool", writer)


async def test_a_chat_is_answered_and_logged_under_its_id(server: Server, writer: Predictor) -> None:
    made = await server.client.chat.completions.create(model="m", messages=ASKED, max_tokens=6)
    (row,) = server.logged()
    said = made.choices[0].message.content
    assert said is not None
    assert (row["prediction_id"], row["label"], row["input"]) == (made.id, said.strip(), json.dumps(ASKED))
    assert made.usage is not None
    assert 0 < made.usage.completion_tokens <= 6
    assert made.choices[0].finish_reason in {"stop", "length"}
    # What is written token by token is what a batch gets.
    (whole,) = writer([json.dumps(ASKED)])
    assert whole.label.startswith(said.strip())


async def test_a_stream_says_the_same_and_ends_when_it_is_logged(server: Server) -> None:
    whole = await server.client.chat.completions.create(model="m", messages=ASKED)
    text, ended, usage = "", None, None
    stream = await server.client.chat.completions.create(
        model="m", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    parts = 0
    async for event in stream:
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            parts += bool(choice.delta.content)
            ended = choice.finish_reason or ended
    assert text == whole.choices[0].message.content
    assert parts > 1
    assert (ended, usage) == (whole.choices[0].finish_reason, whole.usage)
    assert len(server.logged()) == 2


async def test_completions_and_drawn_texts(server: Server) -> None:
    async def drawn(seed: int) -> str:
        made = await server.client.completions.create(
            model="m", prompt="5th Ave", temperature=1.5, top_p=0.9, seed=seed
        )
        return made.choices[0].text

    assert await drawn(1) == await drawn(1)
    assert len({await drawn(seed) for seed in range(5)}) > 1


async def test_a_text_ends_before_a_stop(tmp_path: Path, writer: Predictor) -> None:
    server = Server(tmp_path, writer)
    whole = (await server.client.completions.create(model="m", prompt="5th Ave")).choices[0].text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    made = await server.client.completions.create(model="m", prompt="5th Ave", stop=[stop])
    assert made.choices[0].text == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"
    parts = [
        event.choices[0].text
        async for event in await server.client.completions.create(model="m", prompt="5th Ave", stop=stop, stream=True)
    ]
    assert "".join(parts) == made.choices[0].text


async def test_more_texts_are_written_at_once_than_asyncio_has_threads(tmp_path: Path) -> None:
    many = 40
    server = Server(tmp_path, Meeting(many, at_once=True))
    asked = [server.client.completions.create(model="m", prompt=f"text {at}") for at in range(many)]
    made = await asyncio.gather(*asked)
    assert [one.choices[0].text for one in made] == [f"text {at}" for at in range(many)]
    assert len(server.logged()) == many


async def test_embeddings_are_those_of_the_log(tmp_path: Path) -> None:
    server = Server(tmp_path, fakes.FakePredictor())
    made = await server.client.embeddings.create(model="m", input=["abc", "de"])
    assert [one.embedding for one in made.data] == [[3.0] * 3, [2.0] * 3]
    plain = await server.client.embeddings.create(model="m", input="abc", encoding_format="float")
    assert plain.data[0].embedding == [3.0] * 3
    assert server.logged() == []
    assert (made.usage.prompt_tokens, made.usage.total_tokens) == (2, 2)


async def test_tokens_of_what_is_embedded_are_counted(server: Server, writer: Predictor) -> None:
    made = await server.client.embeddings.create(model="m", input=["5th Ave", "219 South Dearborn"])
    assert made.usage.prompt_tokens == sum(map(len, writer.prompts(["5th Ave", "219 South Dearborn"])))


async def test_models_are_listed(server: Server) -> None:
    (found,) = (await server.client.models.list()).data
    assert (found.id, found.object, found.owned_by) == ("m", "model", "rehone")


async def test_another_model_is_none(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'other' is served here"):
        await server.client.chat.completions.create(model="other", messages=ASKED)
    with pytest.raises(openai.BadRequestError, match="an input of 1,001 characters") as refused:
        await server.client.completions.create(model="m", prompt="a" * 1001)
    assert refused.value.type == "invalid_request_error"


TOOL = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
SAID = {"role": "user", "content": "5th Ave"}


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"tools": [TOOL]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"functions": [TOOL["function"]]}, "functions", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "invalid_value"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"logprobs": True, "top_logprobs": 3}, "logprobs", "unsupported_parameter"),
        ({"n": 2}, "n", "invalid_value"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"metadata": {"a": "b"}}, "metadata", "unsupported_parameter"),
        ({"service_tier": "flex"}, "service_tier", "invalid_value"),
        ({"modalities": ["text", "audio"]}, "modalities[1]", "invalid_value"),
        ({"stop": list("abcde")}, "stop", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, None, "invalid_value"),
        ({"extra_body": {"top_k": 3}}, "top_k", "unknown_parameter"),
        ({"messages": [SAID, {"role": "user", "content": [SAID, IMAGE]}]}, "messages[1].content[0].type", "invalid_value"),
        ({"messages": [SAID, {"role": "tool", "content": "4", "tool_call_id": "a"}]}, "messages[1].role", "invalid_value"),
        ({"messages": [SAID | {"name": "ada"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [TOOL]}]}, "messages[0].tool_calls", "unsupported_parameter"),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_done_is_named(
    server: Server, asked: dict[str, Any], param: str | None, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await server.client.chat.completions.create(**({"model": "m", "messages": ASKED} | asked))
    told = refused.value
    assert (told.status_code, told.type, told.param, told.code) == (400, "invalid_request_error", param, code)
    assert (param or "stream_options") in told.message
    assert server.logged() == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"logprobs": 0}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "."}, "suffix"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [5, 6]}, "prompt"),
    ],
)
async def test_so_is_one_of_a_completion(server: Server, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await server.client.completions.create(**({"model": "m", "prompt": "5th Ave"} | asked))
    assert refused.value.param == param


async def test_values_that_change_nothing_change_nothing(server: Server) -> None:
    plain = await server.client.chat.completions.create(model="m", messages=ASKED)
    fields = [*TextAsked.model_fields, "tools", "functions", "response_format", "modalities", "max_completion_tokens"]
    nothing = {name: None for name in fields if name not in {"model", "safety_identifier", "metadata"}}
    for more in (
        {"extra_body": nothing},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "response_format": {"type": "text"}},
        {"n": 1, "logprobs": False, "top_p": 1, "temperature": 0, "frequency_penalty": 0, "store": False},
        {"service_tier": "auto", "modalities": ["text"], "prompt_cache_key": "a", "safety_identifier": "ada"},
        {"messages": [message | {"content": split(message["content"])} for message in ASKED]},
        {"messages": [ASKED[0] | {"role": "developer"}, ASKED[1]]},
    ):
        made = await server.client.chat.completions.create(**({"model": "m", "messages": ASKED} | more))
        assert (made.choices, made.usage) == (plain.choices, plain.usage), more
    whole = await server.client.completions.create(model="m", prompt="5th Ave")
    listed = await server.client.completions.create(model="m", prompt=["5th Ave"], best_of=1, echo=False)
    assert listed.choices == whole.choices
    # An answer as the client has it can be sent back.
    said = plain.choices[0].message.model_dump()
    again = await server.client.chat.completions.create(model="m", messages=[*ASKED, said, SAID])
    assert again.choices[0].message.content


def split(content: str) -> list[dict[str, str]]:
    half = len(content) // 2
    return [{"type": "text", "text": part} for part in (content[:half], content[half:])]


async def test_max_completion_tokens_comes_before_max_tokens(server: Server) -> None:
    made = await server.client.chat.completions.create(
        model="m", messages=ASKED, max_tokens=9, max_completion_tokens=2, temperature=0
    )
    assert made.usage is not None
    assert made.usage.completion_tokens <= 2


async def test_usage_comes_with_the_last_event_and_only_where_it_is_asked_for(server: Server) -> None:
    async def told(**more: Any) -> list[object]:
        asked = {"model": "m", "prompt": "5th Ave", "stream": True} | more
        return [event.usage async for event in await server.client.completions.create(**asked)]

    whole = (await server.client.completions.create(model="m", prompt="5th Ave")).usage
    assert set(await told()) == {None}
    *before, last = await told(stream_options={"include_usage": True})
    assert (set(before), last) == ({None}, whole)


async def test_a_classifier_writes_nothing(tmp_path: Path) -> None:
    task = tasks.get("text-classification")
    with pytest.raises(Exception, match="writes no texts"):
        task.write(None, None, "a", BOUNDS, Sampling(3))


async def test_texts_take_turns(tmp_path: Path) -> None:
    server = Server(tmp_path, fakes.FakePredictor())
    texts = [" ".join([word] * 4) for word in "abc"]
    made = await asyncio.gather(*(server.client.completions.create(model="m", prompt=text) for text in texts))
    assert [one.choices[0].text for one in made] == texts
    assert len({one.id for one in made}) == 3
