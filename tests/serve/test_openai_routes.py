"""OpenAI's own client against the application, over a tiny Llama that has learned nothing: what it writes is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import httpx
import openai
import pytest

from jobs import model, tasks
from jobs.data import intake
from jobs.predictor import Predictor
from jobs.spec import Spec
from jobs.tasks.task import Bounds, Sampling
from serve import app
from serve.engine import Answered, Engine
from serve.models import One
from serve.predictions import PREDICTIONS
from serve.service import Service
from serve.spool import Spool
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


async def test_models_are_listed(server: Server) -> None:
    (found,) = (await server.client.models.list()).data
    assert (found.id, found.object, found.owned_by) == ("m", "model", "rehone")


async def test_what_cannot_be_done_is_refused(server: Server, tmp_path: Path) -> None:
    chat = server.client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="no model 'other' is served here"):
        await chat(model="other", messages=ASKED)
    with pytest.raises(openai.UnprocessableEntityError, match=r"tools: .*is not supported here"):
        await chat(model="m", messages=ASKED, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(openai.UnprocessableEntityError, match="n: Input should be 1"):
        await chat(model="m", messages=ASKED, n=2)
    assert server.logged() == []


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
