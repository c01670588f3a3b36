from __future__ import annotations

import pickle
import random
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError, DetachedError, JobFailedError
from cluster.submission import follow
from cluster.submission.follow import Follower, attend, raise_unless_succeeded
from cluster.submission.submit import Job, Jobs

LOG = "".join(f"line {i}\n" for i in range(50))


def job(status: str = "SUCCEEDED", code: int | None = 0) -> Job:
    return Job("j", status, "command", {}, "message\nmore", driver_exit_code=code)


class Cluster:
    """A job's log behind a connection that breaks after so many characters, again and again; then it holds."""

    address = "http://fake"

    def __init__(self, *breaks: int, chunk: int = 7, answers: list[Job | None] | None = None) -> None:
        self.headers: dict[str, str] = {}
        self.breaks, self.chunk, self.answers = list(breaks), chunk, answers or [job()]
        self.stopped: list[str] = []

    def tail(self, source: object, submission_id: str, feed: Callable[[str], object]) -> None:
        until = self.breaks.pop(0) if self.breaks else len(LOG)
        for at in range(0, until, self.chunk):
            feed(LOG[at : min(at + self.chunk, until)])
        if until < len(LOG):
            raise ClusterError("cut")

    def get(self, submission_id: str) -> Job | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def logs(self, submission_id: str) -> str:
        return LOG

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)


def follower(cluster: Cluster, patience: float = 600) -> tuple[Follower, list[str], list[float]]:
    written: list[str] = []
    pauses: list[float] = []
    return Follower(cluster, "j", written.append, cluster.tail, pauses.append, patience), written, pauses


@given(st.lists(st.integers(0, len(LOG) - 1), max_size=5), st.integers(1, 60))
def test_each_character_is_written_once_wherever_the_connection_breaks(breaks: list[int], chunk: int) -> None:
    followed, written, _ = follower(Cluster(*breaks, chunk=chunk))
    assert followed.run().status == "SUCCEEDED"
    assert "".join(written) == LOG


def test_what_came_after_the_last_chunk_is_written_too() -> None:
    cluster = Cluster()
    cluster.tail = lambda source, submission_id, feed: feed(LOG[:10])  # type: ignore[method-assign]
    followed, written, _ = follower(cluster)
    followed.run()
    assert "".join(written) == LOG


def test_it_waits_longer_each_time_and_at_last_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    followed, _, pauses = follower(Cluster(*[0] * 99), patience=60)
    with pytest.raises(ClusterError, match=r"no answer for 60 s; job j may go on .*`rehone jobs logs -f j`"):
        followed.run()
    assert pauses == [1, 2, 4, 8, 15, 15, 15]
    assert "connection lost (cut); trying again in 15 s" in capsys.readouterr().err


def test_patience_is_new_after_each_answer() -> None:
    running = [job("RUNNING", None)]
    followed, written, _ = follower(Cluster(*[5, len(LOG)] * 9, answers=[*running * 9, job()]), patience=2)
    followed.run()
    assert "".join(written) == LOG


def test_a_job_that_the_cluster_has_forgotten_is_said() -> None:
    with pytest.raises(ClusterError, match="no longer knows job j"):
        follower(Cluster(answers=[None]))[0].run()


def interrupted(times: int) -> tuple[Follower, list[str], Cluster]:
    """A follower that Ctrl-C meets in the middle of the log."""
    cluster = Cluster()
    whole, left = cluster.tail, [times]

    def tail(source: object, submission_id: str, feed: Callable[[str], object]) -> None:
        if left[0]:
            left[0] -= 1
            feed(LOG[:20])
            raise KeyboardInterrupt
        whole(source, submission_id, feed)

    cluster.tail = tail  # type: ignore[method-assign]
    made, written, _ = follower(cluster)
    return made, written, cluster


def test_ctrl_c_can_be_taken_back() -> None:
    followed, written, _ = interrupted(2)
    assert attend(followed, lambda _: "follow").status == "SUCCEEDED"
    assert "".join(written) == LOG


def test_ctrl_c_detaches_and_says_how_to_stop_it_where_nobody_can_be_asked() -> None:
    followed, _, cluster = interrupted(1)
    with pytest.raises(DetachedError, match="`rehone jobs stop j` ends it") as caught:
        attend(followed)  # standard input of a test is no terminal
    assert (caught.value.exit_code, cluster.stopped) == (130, [])


def test_ctrl_c_can_stop_the_job() -> None:
    followed, _, cluster = interrupted(1)
    cluster.answers = [job("STOPPED", None)]
    assert attend(followed, lambda _: "stop").exit_code == 1
    assert cluster.stopped == ["j"]


def test_the_kernel_asks_whether_a_silent_line_is_dead() -> None:
    """Cut with nobody told, a real one was noticed after 61 s; that takes a network of its own and a minute."""
    with follow._kept_alive((socket.AF_INET, socket.SOCK_STREAM, 0, "", ())) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, each, times = (made.getsockopt(socket.IPPROTO_TCP, option) for option in follow._KEEPALIVE)
    assert idle + each * times <= 60


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", 0, 1),
    ],
)
def test_the_jobs_exit_code_is_ours(status: str, code: int | None, ours: int) -> None:
    assert job(status, code).exit_code == ours
    if ours:
        with pytest.raises(JobFailedError) as caught:
            raise_unless_succeeded(job(status, code), "http://fake")
        assert pickle.loads(pickle.dumps(caught.value)).exit_code == ours
        assert "\n" not in str(caught.value)


class Cutter:
    """A proxy on the way to a server that drops every connection a random moment after it was made."""

    def __init__(self, port: int) -> None:
        self.target, self.cuts, self.closed = port, 0, threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.draw = random.Random(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        until = time.monotonic() + self.draw.uniform(0.2, 1.5)
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            other = {client: server, server: client}
            while time.monotonic() < until:
                for ready in select.select([client, server], [], [], 0.05)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)
            self.cuts += 1


@pytest.fixture
def cutter(ray_session: str) -> Iterator[Cutter]:
    made = Cutter(int(ray_session.rsplit(":", 1)[1]))
    yield made
    made.closed.set()
    made.server.close()


@pytest.mark.ray
def test_a_real_log_comes_whole_through_a_line_that_keeps_breaking(ray_session: str, cutter: Cutter) -> None:
    command = "for i in $(seq 300); do echo line $i; sleep 0.02; done; exit 3"
    Jobs(ray_session).submit_command(command, "cut", {}, {})
    written: list[str] = []
    followed = Follower(Jobs(f"http://127.0.0.1:{cutter.port}"), "cut", written.append, pause=lambda _: None)
    ended = followed.run()
    assert re.findall(r"^line (\d+)$", "".join(written), re.MULTILINE) == [str(i) for i in range(1, 301)]
    assert (ended.exit_code, cutter.cuts > 1) == (3, True)
