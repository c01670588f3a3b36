"""Steady load on a server, and who can be killed under it: the processes of this process's own Ray, and no others."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from cluster.errors import RehoneError
from cluster.settings import Settings
from serve.client import Client
from tests import registering

from . import fakes

MODEL = "tiny"
PREDICT = f"/v1/models/{MODEL}/predict"
_PAUSE = 0.01  # seconds between two requests of a client: steady, not as fast as can be
_PATIENCE = 120.0  # seconds

NODE = "the node's processes"
_KINDS = {
    "a replica": "ServeReplica",
    "HAProxy": "haproxy -db",
    "its manager": "HAProxyManager",
    "the controller": "ServeController",
}
VICTIMS = {name: [title] for name, title in _KINDS.items()} | {NODE: list(_KINDS.values())}


@dataclass
class Load:
    """`clients` threads that ask without end; patient ones by `serve.client`, others once each by plain HTTP.

    `acknowledged` has (prediction id, version) of all that was answered; `failures` what else came, and `statuses`
    how often, 0 for a connection that broke. `slowest` is in seconds.
    """

    url: str
    clients: int = 4
    patient: bool = False
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def ids(self) -> list[str]:
        return [prediction for prediction, _ in self.acknowledged]

    def more(self, count: int, seconds: float = 60) -> None:
        """Waits until so many more answers have come."""
        wanted = len(self.acknowledged) + count
        self.until(lambda: len(self.acknowledged) >= wanted, seconds)

    def until(self, reached: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"{len(self.acknowledged)} answers; {self.failures[-3:]}"
            time.sleep(0.02)

    def _ask(self, number: int) -> None:
        patient, plain = Client(self.url, MODEL, patience=_PATIENCE), httpx.Client(base_url=self.url, timeout=30)
        with patient, plain:
            for nth in itertools.takewhile(lambda _: not self._ended.is_set(), itertools.count()):
                text, began = f"client {number} says {nth}", time.monotonic()
                told = self._told(patient, text) if self.patient else self._asked(plain, text)
                if told is not None:
                    self.acknowledged.append((told["predictions"][0]["prediction_id"], told["version"]))
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(_PAUSE)

    def _told(self, client: Client, text: str) -> dict[str, Any] | None:
        try:
            return client.predict([text])
        except RehoneError as error:
            self.failures.append(str(error))
            return None

    def _asked(self, client: httpx.Client, text: str) -> dict[str, Any] | None:
        try:
            answer = client.post(PREDICT, json={"inputs": [text]})
        except httpx.TransportError as error:
            self.statuses[0] += 1
            self.failures.append(f"{type(error).__name__}: {error}")
            return None
        self.statuses[answer.status_code] += 1
        if answer.is_error:
            self.failures.append(
                f"{answer.status_code}, Retry-After {answer.headers.get('Retry-After')}: {answer.text}"
            )
            return None
        told: dict[str, Any] = answer.json()
        return told


def register(settings: Settings, folder: Path, share: float, golden: float | None = None) -> int:
    """The number of a new version of fakes."""
    fakes.write_version(folder, share, golden)
    return registering.register(settings, MODEL, folder, {"dataset": "none"}).version


def kill(victim: str, draw: random.Random) -> None:
    """SIGKILL to one process of a kind, or to all of every kind where `victim` is the node."""
    found = [process for name in VICTIMS[victim] for process in processes(name)]
    for process in found if victim == NODE else draw.sample(found, min(1, len(found))):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def processes(name: str) -> list[psutil.Process]:
    """Those of this Ray whose title or command has the name: `ServeReplica`, `HAProxyManager`, `haproxy`."""
    mine = [psutil.Process(pid) for pid in _raylets()]
    found = []
    for process in itertools.chain.from_iterable(raylet.children(recursive=True) for raylet in mine):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:  # gone meanwhile
            continue
        if name in title:
            found.append(process)
    return found


def _raylets() -> list[int]:
    return [child.pid for child in psutil.Process().children() if child.name() == "raylet"]
