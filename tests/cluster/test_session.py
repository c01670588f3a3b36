from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cluster.session import PROJECT, free_port, prepare_environment, remote_environment, worker_environment
from cluster.settings import Settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    prepare_environment()
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"


def test_whether_ray_authenticates_follows_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    prepare_environment()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.delenv("RAY_AUTH_MODE")
    (tmp_path / ".ray" / "auth_token").unlink()
    prepare_environment()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    prepare_environment()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_worker_finds_this_code_and_this_place(tmp_path: Path) -> None:
    made = worker_environment(Settings(storage=str(tmp_path)))
    assert (Path(made["PYTHONPATH"]) / "cluster" / "session.py").is_file()
    assert made["PYTHONPATH"] == str(PROJECT)
    assert made["REHONE_STORAGE"] == str(tmp_path)
    assert all(isinstance(value, str) for value in made.values())


def test_what_is_sent_elsewhere_holds_nothing_of_this_machine_and_no_password(tmp_path: Path) -> None:
    place = Settings(
        storage="s3://bucket", spool=str(tmp_path), address="http://127.0.0.1:1", tracking_uri="http://m:5"
    )
    sent = remote_environment(place)
    assert sent["REHONE_STORAGE"] == "s3://bucket"
    assert sent["MLFLOW_TRACKING_URI"] == "http://m:5"
    assert not sent.keys() & {"REHONE_SPOOL", "RAY_API_SERVER_ADDRESS", "PYTHONPATH"}
    secret = Settings(storage=str(tmp_path), tracking_uri="postgresql://me:hush@db/x")
    assert "hush" not in str(worker_environment(secret))


def test_a_free_port_can_be_taken() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", free_port()))
