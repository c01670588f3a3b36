from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from cluster.errors import ClusterError
from jobs.data import intake
from jobs.explain.explanation import Explanation
from jobs.spec import Spec
from serve.engines.engine import Answered, Engine
from serve.http import app
from serve.log.predictions import FEEDBACK, PREDICTIONS
from serve.log.spool import Spool
from serve.many.models import One
from serve.service import Service

from . import fakes
from .test_spool import tables

PREDICT = "/v1/models/m/predict"
EXPLAIN = "/v1/models/m/explain"


class Server:
    """The application over a fake model and a real spool."""

    def __init__(self, folder: Path, pii: str = "keep") -> None:
        self.spool = Spool(folder)
        self.engine: Engine | None = Engine(fakes.version(7), fakes.FakePredictor())

        async def answer(texts: Sequence[str]) -> Answered:
            assert self.engine is not None
            return self.engine.answer(texts)

        spec = {"name": "m", "base_model": "b", "data": {"source": "x.csv", "pii": pii}}
        take = intake.taker(Spec.model_validate(spec))
        self.service = Service("m", self.spool, lambda: self.engine, answer, take=take, explain_steps=4)
        models = One(self.service, fakes.Follower({6: "broken"}))
        self.api = app.build(models, app.Limits(predict=4, explain=2, characters=1000))

    async def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            # Not httpx's own encoding, which refuses what a client in another language can send.
            headers = {"Content-Type": "application/json"}
            return await client.request(method, path, content=json.dumps(body).encode(), headers=headers)

    def logged(self) -> dict[str, list[dict[str, object]]]:
        into = tables()
        self.spool.flush(into)
        return {name: table.rows for name, table in into.items()}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("inputs", "texts"), [("one", ["one"]), (["a", "b", "c"], ["a", "b", "c"])])
async def test_answers_are_in_the_spool_before_they_are_sent(server: Server, inputs, texts) -> None:
    answer = await server.ask("POST", PREDICT, {"inputs": inputs})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"], len(body["predictions"])) == ("m", 7, len(texts))
    rows = server.logged()[PREDICTIONS]
    assert [row["prediction_id"] for row in rows] == [p["prediction_id"] for p in body["predictions"]]
    assert [row["input"] for row in rows] == texts
    assert body["predictions"][0]["scores"] == {"negative": 0.25, "positive": 0.75}


async def test_personal_data_that_the_spec_masks_is_neither_read_by_the_model_nor_kept(tmp_path: Path) -> None:
    server = Server(tmp_path, pii="mask")
    await server.ask("POST", PREDICT, {"inputs": ["write to a.b@example.org", "no"]})
    assert [row["input"] for row in server.logged()[PREDICTIONS]] == ["write to <EMAIL>", "no"]
    body = (await server.ask("POST", EXPLAIN, {"inputs": "write to a.b@example.org"})).json()
    assert body["explanations"][0]["text"] == "write to <EMAIL>"


async def test_explanations_name_words_and_are_not_logged(server: Server) -> None:
    body = (await server.ask("POST", EXPLAIN, {"inputs": ["what a day", "no"], "label": "positive"})).json()
    assert (body["model"], body["version"]) == ("m", 7)
    first, second = body["explanations"]
    assert first["words"] == [{"word": "what", "start": 0, "end": 4, "attribution": 0.25}]
    assert (first["label"], first["score"], first["empty_score"], first["gap"]) == ("positive", 0.75, 0.5, 0.0)
    assert second["words"][0]["word"] == "no"
    assert not any(server.logged().values())


async def test_predictions_go_on_while_an_input_is_explained(server: Server) -> None:
    assert server.engine is not None
    begun, answered = threading.Event(), threading.Event()
    plain = server.engine.predictor.explain

    def slow(text: str, label: str | None, steps: int) -> Explanation:
        begun.set()
        assert answered.wait(10)
        return plain(text, label, steps)

    server.engine.predictor.explain = slow  # type: ignore[method-assign]
    explaining = asyncio.create_task(server.ask("POST", EXPLAIN, {"inputs": "one two"}))
    await asyncio.to_thread(begun.wait, 10)
    assert (await server.ask("POST", PREDICT, {"inputs": "a"})).status_code == 200
    answered.set()
    assert (await explaining).status_code == 200


async def test_feedback_comes_back_by_prediction_id(server: Server) -> None:
    made = (await server.ask("POST", PREDICT, {"inputs": ["a", "b"]})).json()["predictions"]
    one = {"prediction_id": made[0]["prediction_id"], "label": "negative"}
    many = {"feedback": [{"prediction_id": made[1]["prediction_id"], "label": "positive"}]}
    assert (await server.ask("POST", "/v1/feedback", one)).json() == {"accepted": 1}
    assert (await server.ask("POST", "/v1/feedback", many)).json() == {"accepted": 1}
    rows = server.logged()[FEEDBACK]
    assert [(row["prediction_id"], row["label"]) for row in rows] == [
        (made[0]["prediction_id"], "negative"),
        (made[1]["prediction_id"], "positive"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/other/predict", {"inputs": "a"}, 404, "no model 'other' is served here (this is 'm')"),
        (PREDICT, {"inputs": ["a"] * 5}, 422, "5 inputs in one request (send at most 4)"),
        (PREDICT, {"inputs": ["a", "b" * 1001]}, 422, "an input of 1,001 characters (send at most 1,000)"),
        (PREDICT, {"inputs": []}, 422, "inputs: List should have at least 1 item"),
        (PREDICT, {"inputs": ["a", ""]}, 422, "inputs.1: String should have at least 1 character"),
        (PREDICT, {"inputs": ["a", 3]}, 422, "inputs.1: Input should be a valid string"),
        (PREDICT, {"inputs": "\ud800"}, 422, "inputs.0: Input should be a valid string, unable to parse"),
        (PREDICT, {"inputs": "a", "temperature": 1}, 422, "temperature: Extra inputs are not permitted"),
        (PREDICT, [], 422, "body: Input should be a valid dictionary"),
        (EXPLAIN, {"inputs": ["a"] * 3}, 422, "3 inputs in one request (send at most 2)"),
        (EXPLAIN, {"inputs": "a", "label": "happy"}, 422, "m: 'happy' is no label; labels are negative, positive"),
        (EXPLAIN, {"inputs": "a", "steps": 9}, 422, "steps: Extra inputs are not permitted"),
        ("/v1/models/other/explain", {"inputs": "a"}, 404, "no model 'other' is served here"),
        ("/v1/feedback", {"prediction_id": "nonsense", "label": "positive"}, 422, "'nonsense' is no prediction id"),
        ("/v1/feedback", {"prediction_id": f"x.1.{'0' * 22}", "label": "positive"}, 404, "no model 'x' is served here"),
        (
            "/v1/feedback",
            {"prediction_id": f"m.1.{'0' * 22}", "label": "happy"},
            422,
            "m: 'happy' is no label; labels are",
        ),
    ],
)
async def test_a_bad_request_gets_one_clear_line(server: Server, path, body, status, said) -> None:
    answer = await server.ask("POST", path, body)
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert detail.startswith(said)
    assert "\n" not in detail
    assert not any(server.logged().values())


async def test_feedback_is_taken_whole_or_not_at_all(server: Server) -> None:
    made = (await server.ask("POST", PREDICT, {"inputs": ["a"]})).json()["predictions"][0]["prediction_id"]
    labels = [{"prediction_id": made, "label": "positive"}, {"prediction_id": made, "label": "no such"}]
    assert (await server.ask("POST", "/v1/feedback", {"feedback": labels})).status_code == 422
    assert server.logged()[FEEDBACK] == []


async def test_models_and_health(server: Server) -> None:
    served = (await server.ask("GET", "/v1/models")).json()["data"][0]
    assert (served["id"], served["version"], served["labels"]) == ("m", 7, ["negative", "positive"])
    assert served["failed"] == {"6": "broken"}
    assert (await server.ask("GET", "/healthz")).json() == {"status": "ok"}


async def test_before_a_version_is_loaded_the_answer_is_503(server: Server) -> None:
    server.engine = None
    for method, path, body in (
        ("GET", "/healthz", None),
        ("POST", PREDICT, {"inputs": "a"}),
        ("POST", EXPLAIN, {"inputs": "a"}),
    ):
        answer = await server.ask(method, path, body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "no version of this model is loaded yet" in answer.json()["detail"]


async def test_what_can_answer_no_more_is_not_healthy(server: Server) -> None:
    dead = fakes.FakePredictor()
    dead.dead = ClusterError("it ended with 3")
    server.engine = Engine(fakes.version(7), dead)
    answer = await server.ask("GET", "/healthz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "it ended with 3")


async def test_an_answer_that_cannot_be_written_down_is_not_given(server: Server, monkeypatch) -> None:
    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.spool, "_write", full)
    answer = await server.ask("POST", PREDICT, {"inputs": "a"})
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("the prediction log cannot be written: ")


async def test_openapi_names_every_route(server: Server) -> None:
    paths = (await server.ask("GET", "/openapi.json")).json()["paths"]
    text = {"type": "string", "minLength": 1}
    inputs = server.api.openapi()["components"]["schemas"]["PredictRequest"]["properties"]["inputs"]
    assert inputs["anyOf"] == [text, {"type": "array", "items": text}]
    assert set(paths) == {
        "/v1/models/{model}/predict",
        "/v1/models/{model}/explain",
        "/v1/feedback",
        "/v1/models",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/healthz",
    }
