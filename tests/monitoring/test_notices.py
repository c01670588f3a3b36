from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import UserError
from cluster.settings import Settings
from monitoring import notices
from monitoring.journal import BEGUN, DONE, FAILED, Journal
from monitoring.notices import channels, messages, tell

from .fakes import BEGAN, MODEL

# Apprise 2.3 imports a module that Python 3.13 has no more, where there is one.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@dataclass
class Receiver:
    """A webhook on this machine: what came in, and the status it answers with."""

    port: int = 0
    status: int = 200
    came: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/a-token"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(received.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        received.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


@pytest.fixture
def journal(storage) -> Journal:
    """Each row a minute after the one before."""
    minutes = iter(range(1000))
    return Journal(storage, lambda: BEGAN + timedelta(minutes=next(minutes)))


def decide(journal: Journal, number: int, action: str, *, alarm: bool = True) -> None:
    body = {"action": action, "alarm": alarm, "reasons": [f"window {number}", "because"]}
    journal.write(MODEL, "decision", DONE, f"1-{number}", body)


def a_day_of_drift(journal: Journal) -> None:
    """A quiet window, two that wait, one that retrains; the job fails, the next is promoted and rolled back."""
    decide(journal, 1, "keep", alarm=False)
    decide(journal, 2, "wait")
    decide(journal, 3, "wait")
    decide(journal, 4, "retrain")
    journal.write(MODEL, "retrain", BEGUN, "1-4", {"submission_id": "job-4"})
    journal.write(MODEL, "retrain", FAILED, "1-4", {"submission_id": "job-4", "status": "FAILED"})
    journal.write(MODEL, "verdict", DONE, "2", {"promote": True, "reasons": ["better", "no harm"]})
    journal.write(MODEL, "promotion", BEGUN, "2-settled", {"version": 2})
    journal.write(MODEL, "promotion", DONE, "2-settled", {"version": 2})
    journal.write(MODEL, "verdict", DONE, "3", {"promote": False, "reasons": ["not better"]})
    journal.write(MODEL, "rollback", BEGUN, "1-x", {"version": 1})
    journal.write(MODEL, "rollback", DONE, "1-x", {"version": 1})


SAID = [
    ("warning", "moods: alarm, wait", "window 2; because"),
    ("warning", "moods: retraining", "window 4; because"),
    ("failure", "moods: the retraining failed", "job job-4 ended as FAILED; `rehone jobs logs` has its output"),
    ("success", "moods: version 2 promoted", "better; no harm"),
    ("info", "moods: version 3 refused", "not better"),
    ("warning", "moods: rolled back to version 1", "it answers from here on"),
]


def test_what_people_are_told_is_what_changed(journal):
    a_day_of_drift(journal)
    told = list(messages(journal.entries(MODEL)))
    assert [(m.kind, m.title, m.body) for m in told] == SAID
    assert len({m.key for m in told}) == len(told)


def test_a_version_that_passed_is_told_of_when_it_is_known_what_follows(journal):
    def told() -> list[tuple[str, str]]:
        return [(m.title, m.body) for m in messages(journal.entries(MODEL))]

    journal.write(MODEL, "verdict", DONE, "2", {"promote": True, "reasons": ["better"]})
    assert told() == []
    journal.write(MODEL, "awaits", DONE, "2", {"version": 2, "why": "a person's word is wanted"})
    waits = (
        "moods: version 2 passed the gate and waits",
        "a person's word is wanted; `rehone promote moods 2` lets it serve",
    )
    assert told() == [waits]
    journal.write(MODEL, "promotion", DONE, "2-17", {"version": 2, "by": "ann@desk"})
    assert told() == [waits, ("moods: version 2 promoted", "by ann@desk")]
    journal.write(MODEL, "verdict", DONE, "3", {"promote": True, "reasons": ["better still"]})
    journal.write(MODEL, "trial", BEGUN, "3", {"version": 3, "champion": 2})
    journal.write(MODEL, "promotion", DONE, "3-trial", {"version": 3})
    journal.write(MODEL, "trial", DONE, "3", {"version": 3, "action": "promote", "reasons": ["as good"]})
    assert told()[2:] == [
        ("moods: version 3 passed the gate and goes on trial", "better still"),
        ("moods: version 3 promoted after its trial", "as good"),
    ]


def test_each_message_reaches_a_real_receiver_once(journal, receiver):
    a_day_of_drift(journal)
    send, now = channels(receiver.url), BEGAN + timedelta(hours=1)
    assert tell(journal, MODEL, send, now) == len(SAID)
    assert tell(journal, MODEL, send, now) == 0
    assert [(came["type"], came["title"], came["message"]) for came in receiver.came] == SAID
    decide(journal, 5, "keep", alarm=False)
    decide(journal, 6, "wait")
    assert tell(journal, MODEL, send, now) == 1
    assert receiver.came[-1]["message"] == "window 6; because"


def test_a_channel_that_is_away_is_tried_again(journal, receiver, capsys):
    decide(journal, 1, "retrain")
    receiver.status = 500
    send = channels(receiver.url)
    assert tell(journal, MODEL, send, BEGAN) == 0
    assert "did not take 'moods: retraining'; trying again" in capsys.readouterr().err
    receiver.status = 200
    assert tell(journal, MODEL, send, BEGAN) == 1


def test_the_past_is_not_told_to_channels_that_are_new(journal, receiver):
    decide(journal, 1, "retrain")
    assert tell(journal, MODEL, channels(receiver.url), BEGAN + notices.NEWS + timedelta(minutes=1)) == 0
    assert receiver.came == []


def test_a_channel_that_is_none_is_one_line_without_its_token():
    with pytest.raises(UserError, match="channel 2 is no Apprise URL") as caught:
        channels("json://127.0.0.1:1/ nonsense://a-token")
    assert "a-token" not in str(caught.value)


def test_settings_keep_channels_to_themselves(monkeypatch):
    monkeypatch.setenv("REHONE_NOTIFY", "json://127.0.0.1:1/a-token")
    settings = Settings.from_environment()
    assert "a-token" not in f"{settings!r} {settings.model_dump_json()} {settings.environment()}"


def test_the_verb_sends_a_test(receiver, monkeypatch):
    invoke = CliRunner().invoke
    monkeypatch.delenv("REHONE_NOTIFY", raising=False)
    none = invoke(rehone.app, ["notify"])
    assert isinstance(none.exception, UserError)
    monkeypatch.setenv("REHONE_NOTIFY", receiver.url)
    assert invoke(rehone.app, ["notify"]).stdout == "sent\n"
    assert [came["title"] for came in receiver.came] == ["rehone: a test"]
