from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

import rehone
from cluster.errors import ClusterError, UserError
from cluster.session import free_port
from cluster.store.storage import Storage
from serve import client
from serve.client import Client
from serve.http import callers
from serve.http.callers import Callers, Either
from serve.http.issuer import Issuer

from .issuing import issuer
from .test_app import Server
from .test_guard import Front

TOLD = {"model": "m", "version": 1, "predictions": []}


class Away:
    """A server that answers with what is left of `answers`, then with `TOLD`."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked, self.slept = list(answers), 0, list[float]()

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else httpx.Response(200, json=TOLD)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, patience: float = 20.0) -> Client:
        return Client(
            "http://m", "m", patience=patience, transport=httpx.MockTransport(self.handle), sleep=self.slept.append
        )


def test_a_server_that_is_away_for_a_while_is_asked_again() -> None:
    gone = [
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.Response(404, text="Path not found"),
    ]
    server = Away(*gone, httpx.Response(500, text="Internal Server Error"))
    assert server.client().predict(["a"]) == TOLD
    assert server.slept == [0.1, 0.2, 0.4, 0.8]


def test_a_busy_server_says_when_to_come_again() -> None:
    server = Away(
        httpx.Response(503, json={"detail": "no"}, headers={"Retry-After": "3"}),
        httpx.Response(429, headers={"Retry-After": "1"}),
    )
    assert server.client().feedback({"x": "y"}) == TOLD
    assert server.slept == [3.0, 1.0]


@pytest.mark.parametrize("status", [400, 404, 422, 413])
def test_what_is_refused_is_not_sent_again(status: int) -> None:
    server = Away(httpx.Response(status, json={"detail": "not so"}))
    with pytest.raises(UserError, match=f"{status}: not so"):
        server.client().predict(["a"])
    assert server.asked == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "no server answers: refused"),
        (httpx.Response(503, json={"detail": "full"}), "503: full"),
    ],
)
def test_patience_has_an_end(answer: httpx.Response | Exception, said: str) -> None:
    server = Away(answer)
    with pytest.raises(ClusterError, match=said):
        server.client(patience=0).predict(["a"])
    assert (server.asked, server.slept) == (1, [])


class Shut:
    """The real application behind a guard that asks for keys, or for tokens of an issuer."""

    def __init__(self, folder: Path, issuer_: Issuer | None = None) -> None:
        self.storage = Storage(str(folder / "store"))
        _, self.ours = callers.create(self.storage, "shop", ("m",))
        _, self.theirs = callers.create(self.storage, "other", ("n",))
        keys = Callers(self.storage, 60)
        self.front = Front(Server(folder / "spool"), known=keys if issuer_ is None else Either(keys, issuer_))

    def client(self, key: str | None) -> Client:
        def handle(request: httpx.Request) -> httpx.Response:
            asked = {"content": request.content, "headers": request.headers}
            answer = self.front.ask(request.method, request.url.path, **asked)
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        return Client("http://m", "m", patience=0, transport=httpx.MockTransport(handle), key=key)


def test_a_client_with_a_key_predicts_and_gives_feedback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shut = Shut(tmp_path)
    (made,) = shut.client(shut.ours).predict(["what a day"])["predictions"]
    assert shut.client(shut.ours).feedback({made["prediction_id"]: "negative"}) == {"accepted": 1}
    for ask in (lambda one: one.predict(["a"]), lambda one: one.feedback({made["prediction_id"]: "negative"})):
        with pytest.raises(UserError, match=r"401: an API key is needed.*\(set REHONE_API_KEY, or REHONE_API_KEY_FILE"):
            ask(shut.client(None))
        with pytest.raises(UserError, match=r"403: this caller may not ask m \(REHONE_API_KEY is good for other"):
            ask(shut.client(shut.theirs))
    for secret in (shut.ours, shut.theirs):
        assert secret not in caplog.text + "".join(shut.front.lines) + repr(vars(shut.client(secret)))


def test_a_client_with_a_token_predicts(tmp_path: Path) -> None:
    with issuer() as local:
        shut = Shut(tmp_path, Issuer(local.spec()))
        assert shut.client(local.token()).predict(["a"])["version"] == 7
        with pytest.raises(UserError, match="401: the token is not good: it has expired"):
            shut.client(local.token(exp=1)).predict(["a"])


@contextmanager
def listening(shut: Shut) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(shut.front.server.api, port=(port := free_port()), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_command_line_asks_with_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Callable[[Path], Path]
) -> None:
    shut, spec = Shut(tmp_path), project(tmp_path)
    held = tmp_path / "key"
    held.write_text(f"{shut.ours}\n")
    with listening(shut) as url:
        ask = ["predict", str(spec), "what a day", "--url", url, "--json"]
        refused = CliRunner().invoke(rehone.app, ask)
        assert isinstance(refused.exception, UserError)
        assert str(refused.exception).startswith(f"{url}/v1/models/m/predict: 401: an API key is needed")
        monkeypatch.setenv(client.KEY_FILE, str(held))
        assert '"label": "positive"' in CliRunner().invoke(rehone.app, ask, catch_exceptions=False).output
        monkeypatch.setenv(client.KEY, "rhn_wrong")  # before the file
        assert "401" in str(CliRunner().invoke(rehone.app, ask).exception)


@pytest.fixture
def project() -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "x.csv").write_text("text,label\na,b\n")
        made = folder / "spec.yaml"
        made.write_text("name: m\nbase_model: b\ndata: {source: x.csv}\n")
        return made

    return write


def test_a_key_is_looked_for_in_the_environment_then_in_a_file(tmp_path: Path) -> None:
    held = tmp_path / "key"
    held.write_text(" in the file\n")
    assert client.key({}) is None
    assert client.key({client.KEY: " here "}) == "here"
    assert client.key({client.KEY: "here", client.KEY_FILE: str(held)}) == "here"
    assert client.key({client.KEY: "", client.KEY_FILE: str(held)}) == "in the file"


@pytest.mark.parametrize("held", [None, b"\xff\xfe secret", b"two\nsecret lines", "secret \u2013".encode()])
def test_a_key_that_cannot_be_sent_is_said_in_one_line_without_it(tmp_path: Path, held: bytes | None) -> None:
    file = tmp_path / "key"
    if held is not None:
        file.write_bytes(held)
    with pytest.raises(UserError, match=rf"^{re.escape(f'{client.KEY_FILE}={file}')}: [a-zA-Z :]+") as error:
        client.key({client.KEY_FILE: str(file)})
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
