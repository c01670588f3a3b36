"""A driver whose nodes come and go while it trains, in a process of its own: `python -m tests.jobs.elastic SPEC STORE`.

Two raylets of one CPU each. The second is told that it will be taken back, and is; another comes, and is killed; then
the driver kills itself. What happened, it prints as one line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.session import NODE_ENVIRONMENT, connect, prepare_environment
from cluster.settings import Settings
from cluster.store.tracking import Run
from jobs import pipeline, specfile
from jobs.data import preparation
from jobs.pipeline import Place

NOTICE_SECONDS = 20
"""Clouds give 30 to 120. Ray counts a node's death as announced at its deadline, not before."""

WAIT_SECONDS = 150.0
"""For each thing that is to happen; a busy machine takes a minute to start workers."""


def main(spec_file: str, store: str) -> None:
    os.environ.update(NODE_ENVIRONMENT, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="5")
    prepare_environment()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    spec = specfile.load(Path(spec_file))
    place = Place.from_settings(Settings(storage=store, storage_shared=True))
    with connect(place.settings):
        data = preparation.prepare(spec, place.storage)
        threading.Thread(target=_happen, args=(cluster, second, place), daemon=True).start()
        pipeline.train_and_publish(spec, data, place)


def _happen(cluster: Any, second: Any, place: Place) -> None:
    from cluster.store.tracking import Tracker

    while not (notes := place.storage.list("unfinished")):
        time.sleep(0.2)
    run = Tracker(place.settings, "tiny").open(place.storage.read_json(f"unfinished/{notes[0]}")["run"])
    _until("two workers", lambda: _reports(run, 2) >= 3)
    deadline = time.time() + NOTICE_SECONDS
    _drain(second.node_id, cluster.address, deadline)
    _until("saved on notice", lambda: bool(run.history("saved_on_notice")))
    time.sleep(max(0.0, deadline + 1 - time.time()))
    os.kill(second.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    _until("one worker", lambda: _reports(run, 1) >= 3)
    before = _reports(run, 2)
    third = _started(cluster.address)
    _until("two workers again", lambda: _reports(run, 2) >= before + 3)
    before = _reports(run, 1)
    os.kill(third, signal.SIGKILL)
    _until("one worker again", lambda: _reports(run, 1) >= before + 3)
    os.kill(os.getpid(), signal.SIGKILL)


def _reports(run: Run, workers: int) -> int:
    return sum(value == workers for _, value in run.history("workers"))


def _until(what: str, holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > WAIT_SECONDS:
            print(json.dumps({"what": f"never: {what}"}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
    print(json.dumps({"what": what, "seconds": round(time.monotonic() - began, 1)}), flush=True)


def _drain(node_id: str, address: str, deadline: float) -> None:
    """As a cloud's notice comes to Ray: through its autoscaler's API, here `ray drain-node`'s own call."""
    import ray
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gcs = ray._raylet.GcsClient(address=address)
    accepted, why = gcs.drain_node(node_id, reason, "taken back", int(deadline * 1000))
    assert accepted, why


def _started(address: str) -> int:
    """The raylet of another node, by `ray start`: `Cluster.add_node` works in a main thread only."""
    import psutil

    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", f"--address={address}", "--num-cpus=1", "--block"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        for child in psutil.Process(started.pid).children(recursive=True):
            if child.name() == "raylet":
                return child.pid
        time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
