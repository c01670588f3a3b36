"""Following a job: its log as it comes, each line once, through lost connections, until it has ended."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.console import ask, is_attended, say
from cluster.errors import ClusterError, DetachedError, JobFailedError

from .submit import Job

PATIENCE = 600.0
"""Seconds without an answer after which following ends; the job may well go on."""
_LONGEST_PAUSE = 15.0
# The server answers no pings while it sends a log, and Ray's API can only send one from its start: the kernel is to
# notice a dead line, after a minute of silence, and a new one is made for one that something on the way keeps open.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
_QUIET = 900.0

Write = Callable[[str], object]


class Source(Protocol):
    """What is followed: `submit.Jobs`."""

    address: str
    headers: dict[str, str]

    def get(self, submission_id: str) -> Job | None: ...

    def logs(self, submission_id: str) -> str: ...

    def stop(self, submission_id: str) -> None: ...


def tail(source: Source, submission_id: str, feed: Write) -> None:
    """The log from its first character on, until the server closes or has been quiet for a quarter of an hour.

    Raises ClusterError when the connection breaks.
    """
    asyncio.run(_tail(source, submission_id, feed))


async def _tail(source: Source, submission_id: str, feed: Write) -> None:
    import aiohttp

    url = f"{source.address}/api/jobs/{submission_id}/logs/tail"
    try:
        async with (
            aiohttp.ClientSession(
                headers=source.headers, connector=aiohttp.TCPConnector(socket_factory=_kept_alive)
            ) as session,
            session.ws_connect(url, max_msg_size=0) as stream,
        ):
            while True:
                message = await stream.receive(timeout=_QUIET)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                feed(message.data)
    except TimeoutError:
        return
    except (aiohttp.ClientError, OSError) as error:
        raise ClusterError(f"lost the log of {submission_id}: {error}", where=source.address) from error


def _kept_alive(info: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of `getaddrinfo` whose other end is asked whether it is there."""
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


@dataclass
class Follower:
    """Follows one job; interrupted and run again it goes on where it was."""

    source: Source
    submission_id: str
    write: Write = field(default=lambda text: print(text, end="", flush=True))
    tail: Callable[[Source, str, Write], None] = tail
    pause: Callable[[float], None] = time.sleep
    patience: float = PATIENCE
    _printed: int = 0

    def run(self) -> Job:
        """Until the job has ended. Raises ClusterError when the cluster stays away or no longer knows the job."""
        away = pause = 0.0
        while True:
            try:
                job = self._once()
            except ClusterError as error:
                if away >= self.patience:
                    raise self._given_up() from error
                pause = min(max(1.0, pause * 2), _LONGEST_PAUSE)
                say(f"connection lost ({error.what}); trying again in {pause:.0f} s")
                self.pause(pause)
                away += pause
                continue
            if job is None:
                raise ClusterError(f"the cluster at {self.source.address} no longer knows job {self.submission_id}")
            if job.ended:
                return job
            away = pause = 0.0

    def _once(self) -> Job | None:
        """One connection: what is new of the log, then how the job stands."""
        self.tail(self.source, self.submission_id, self._replay())
        job = self.source.get(self.submission_id)
        if job is not None and job.ended:
            self._replay()(self.source.logs(self.submission_id))  # what came between the last chunk and the end
        elif job is not None:
            self.pause(1)
        return job

    def _replay(self) -> Write:
        """Takes a log from its start and writes what was not written before."""
        seen = 0

        def feed(text: str) -> None:
            nonlocal seen
            new = text[max(0, self._printed - seen) :]
            seen += len(text)
            if new:
                self.write(new)
                self._printed = seen

        return feed

    def _given_up(self) -> ClusterError:
        return ClusterError(
            f"no answer for {self.patience:.0f} s; job {self.submission_id} may go on",
            where=self.source.address,
            mend=f"`rehone jobs logs -f {self.submission_id}` follows it again",
        )


def attend(follower: Follower, choose: Callable[[str], str] | None = None) -> Job:
    """Follow to the end; Ctrl-C asks whether to detach or stop. Raises DetachedError."""
    while True:
        try:
            return follower.run()
        except KeyboardInterrupt:
            chosen = (choose or _chosen)(follower.submission_id)
        if chosen == "detach":
            raise DetachedError(
                f"job {follower.submission_id} goes on",
                where=follower.source.address,
                mend=f"`rehone jobs logs -f {follower.submission_id}` follows it, "
                f"`rehone jobs stop {follower.submission_id}` ends it",
            )
        if chosen == "stop":
            say(f"stopping job {follower.submission_id}")
            follower.source.stop(follower.submission_id)


def _chosen(submission_id: str) -> str:
    if not is_attended():
        return "detach"
    print(file=sys.stderr)
    return ask(
        f"job {submission_id} is running: detach, stop it, or follow on?", ["detach", "stop", "follow"], "detach"
    )


def raise_unless_succeeded(job: Job, address: str) -> None:
    """Raises JobFailedError with the job's own exit code."""
    if job.status != "SUCCEEDED":
        said = job.message.partition("\n")[0] or "no reason given"
        code = job.driver_exit_code
        raise JobFailedError(
            f"job {job.submission_id} ended {job.status}: {said if code is None else f'exit code {code}'}",
            where=address,
            mend=f"`rehone jobs logs {job.submission_id}` has its log",
            exit_code=job.exit_code,
        )
