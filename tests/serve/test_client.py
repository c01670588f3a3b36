from __future__ import annotations

import httpx
import pytest

from cluster.errors import ClusterError, UserError
from serve.client import Client

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
