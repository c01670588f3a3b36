"""How much memory, CPU and disk each part takes: the verbs are run as users run them, and their processes are watched.

    python bench/sizing.py [SPEC] [--set KEY=VALUE ...]     default: examples/sentiment.yaml

Trains one epoch, serves the result on a free port, asks it with 16 clients for 30 seconds, lets the watch judge what
came in, and tidies the log, all in a storage root of its own. Memory is what a process has to itself (USS of Linux),
the largest that was seen, of the largest process of a role. CPU is seconds a second while it was asked.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from deltalake import DeltaTable

from cluster.store.storage import Storage
from jobs.show import table
from jobs.specfile import load
from serve.log.predictions import prediction_log

ROLES = {
    "ServeReplica": "a replica",
    "ServeController": "Serve's controller",
    "RayTrainWorker": "a training worker",
    "TrainController": "Ray Train's controller",
    "haproxy": "HAProxy",
    "gcs_server": "Ray's GCS",
    "raylet": "raylet",
    "dashboard": "dashboard and agents",
    "-m rehone": "the verb itself",
}
CLIENTS, SECONDS, MIB = 16, 30.0, 2**20


@dataclass
class Watched:
    """The processes under one: MiB that were theirs at most, and CPU seconds so far, by role."""

    process: psutil.Process
    memory: dict[str, float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self.ended.wait(0.5):
            for role, process in self.roles():
                with suppress(psutil.Error):
                    self.memory[role] = max(self.memory.get(role, 0), process.memory_full_info().uss / MIB)

    def roles(self) -> Iterator[tuple[str, psutil.Process]]:
        for process in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                role = next((name for word, name in ROLES.items() if word in line), None)
                if role is not None:
                    yield role, process

    def cpu(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for role, process in self.roles():
            with suppress(psutil.Error):
                used[role] = used.get(role, 0) + sum(process.cpu_times()[:2])
        return used


@contextmanager
def verb(words: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], Watched]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rehone", *words, "--json"], env=environment, stdout=subprocess.PIPE, text=True
    )
    watched = Watched(psutil.Process(process.pid))
    thread = threading.Thread(target=watched.look)
    thread.start()
    try:
        yield process, watched
    finally:
        watched.ended.set()
        thread.join()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


def run(words: list[str], environment: dict[str, str]) -> tuple[dict[str, float], float, Any]:
    """(MiB by role, seconds, answer) of a verb that ends."""
    start = time.monotonic()
    with verb(words, environment) as (process, watched):
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"rehone {' '.join(words)} failed")
    return watched.memory, time.monotonic() - start, json.loads(out)


def url_of(process: subprocess.Popen[str]) -> str:
    text = ""
    assert process.stdout is not None
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    return str(json.loads(text)["url"])


def ask(url: str, model: str, texts: list[str], until: float, answered: list[int]) -> None:
    with httpx.Client(timeout=60) as client:
        number = 0
        while time.monotonic() < until:
            body = {"inputs": [texts[number % len(texts)]]}
            client.post(f"{url}/v1/models/{model}/predict", json=body).raise_for_status()
            number += 1
    answered.append(number)


def load_on(url: str, model: str, texts: list[str]) -> int:
    """Answers that CLIENTS got in SECONDS."""
    answered: list[int] = []
    until = time.monotonic() + SECONDS
    clients = [threading.Thread(target=ask, args=(url, model, texts, until, answered)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sum(answered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default="examples/sentiment.yaml")
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args()
    sets = ["training.epochs=1", "serving.port=0", *asked.set]
    more = [word for one in sets for word in ("--set", one)]
    spec = load(Path(asked.spec), sets)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"REHONE_STORAGE": folder}
        rows: list[list[object]] = []
        memory, took, _ = run(["train", asked.spec, *more], environment)
        rows += [["train", role, f"{mib:.0f}", "", f"{took:.0f} s"] for role, mib in sorted(memory.items())]
        _, _, planned = run(["plan", asked.spec, *more], environment | {"REHONE_CPU_HOUR_PRICE": "1"})
        with verb(["serve", asked.spec, *more], environment) as (process, watched):
            url = url_of(process)
            texts = [f"what a {word} day this was, number {n}" for n in range(50) for word in ("good", "bad", "long")]
            before = watched.cpu()
            count = load_on(url, spec.name, texts)
            used = {role: (seconds - before.get(role, 0)) / SECONDS for role, seconds in watched.cpu().items()}
            judged, waited, decided = run(["watch", asked.spec, "--once", *more], environment)
        rate = f"{count / SECONDS:.0f} answers/s"
        rows += [
            ["serve", role, f"{mib:.0f}", f"{used.get(role, 0):.2f}", rate]
            for role, mib in sorted(watched.memory.items())
        ]
        rows += [
            ["watch", "the verb itself", f"{max(judged.values()):.0f}", "", f"{len(decided)} windows, {waited:.0f} s"]
        ]
        print(table(f"{asked.spec}, {os.cpu_count()} cores, {CLIENTS} clients", ["verb", "", "MiB", "CPU", ""], rows))
        print(f"`rehone plan` then, at a price of 1 for a core's hour: {planned['duration']} {planned['cost']}")
        print("\n".join(f"{name}: {value}" for name, value in disk(Storage(folder), environment).items()))


def disk(storage: Storage, environment: dict[str, str]) -> dict[str, str]:
    """What lies under the root, and what an answer takes once the log is tidied."""
    parts = {path.name: _size(path.rglob("*")) for path in sorted(Path(storage.root).iterdir())}
    answers = prediction_log(storage)
    rows = len(answers.read(columns=["prediction_id"]))
    run(["tidy"], environment)
    size = _size(Path(uri.removeprefix("file://")) for uri in DeltaTable(answers.url).file_uris())
    found = {"GB of a million answers in the log, tidied": f"{size / rows / 1e3:.2f} ({rows:,} were written)"}
    return found | {f"MB in {name}/": f"{of / 1e6:.1f}" for name, of in parts.items()}


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    main()
