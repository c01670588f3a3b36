from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import session
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


class _StartedError(Exception):
    """Ray itself is not needed here."""


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """The ports of Serve's that each local cluster was started with. Its proxy listens, as Serve's does."""
    import ray

    made: list[dict[str, str]] = []
    with ExitStack() as listening:

        def init(**_: object) -> None:
            ports = {name: port for name, port in os.environ.items() if re.fullmatch(r"RAY_SERVE_\w+_PORT", name)}
            proxy = listening.enter_context(socket.socket())
            proxy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            proxy.bind(("127.0.0.1", int(ports["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])))
            proxy.listen()
            made.append(ports)
            raise _StartedError

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(session, "_any_agent_port", lambda: None)
        yield made


def test_no_proxy_answers_for_another_cluster_of_the_machine(clusters: list[dict[str, str]], tmp_path: Path) -> None:
    """Two that share a port are dealt each other's requests, and nobody is told."""
    from ray.serve._private import constants

    for _ in range(2):
        with pytest.raises(_StartedError), session.connect(Settings(storage=str(tmp_path))):
            pass
    first, second = clusters
    pages = [name for name in first if "DIRECT_INGRESS" not in name]
    assert not {first[name] for name in pages} & {second[name] for name in pages}
    # Nor is there a port, of HTTP, that Serve would take in every cluster. What runs beside it inherits none.
    fixed = {name for name, port in vars(constants).items() if re.fullmatch(r"RAY_SERVE_\w+_PORT", name) and port}
    assert {name for name in fixed if "GRPC" not in name} == first.keys()
    assert not first.keys() & os.environ.keys()


def test_ports_that_the_user_has_set_stay(
    clusters: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = str(free_port())
    monkeypatch.setenv("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", wanted)
    with pytest.raises(_StartedError), session.connect(Settings(storage=str(tmp_path))):
        pass
    assert clusters[0]["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] == wanted
    assert os.environ["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] == wanted
