"""Sent to a cluster by `rehone cluster doctor` and run there as a job: asks every node how it is, prints one line.

It imports nothing of rehone, since whether that is there is one of the questions. `python probe.py STORAGE MARK`:
the storage root, and the name of a file that the sender has left under it when it is a folder.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PREFIX = "rehone-probe "
SECONDS = 60.0
"""To wait for a node."""


def here(storage: str, mark: str, folder: str) -> dict[str, Any]:
    """How the machine is on which this runs."""
    return {
        "versions": {"python": platform.python_version(), "ray": _version("ray"), "rehone": _version("rehone")},
        "clock": time.time(),
        "disks": [_disk("Ray's folder", folder), *([] if "://" in storage else [_disk("storage root", storage)])],
        "storage": reach(storage, mark),
    }


def reach(storage: str, mark: str) -> str:
    """Why the storage root is not reached from here; empty when it is."""
    try:
        if "://" not in storage:
            return "" if Path(storage, mark).exists() else "there is another folder of that name, or none"
        import fsspec

        fs, path = fsspec.core.url_to_fs(storage)
        fs.ls(path.strip("/").split("/")[0])  # the bucket: the prefix may be yet to come
    except Exception as error:  # noqa: BLE001 - whatever a file system raises is the answer
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def ask(storage: str, mark: str) -> list[dict[str, Any]]:
    """Every node that the cluster holds for alive, the head first. `skew` is against this process's own clock."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(here)
    answers = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = remote.options(scheduling_strategy=there)
        arguments = (storage, mark, node.get("TempDir") or "/tmp")  # noqa: S108 - Ray's own default
        ready, _ = ray.wait([task.remote(*arguments)], timeout=SECONDS)  # starts a worker, which takes seconds
        answer: dict[str, Any] = {"name": node["NodeManagerAddress"], "answered": bool(ready)}
        if ready:
            start = time.time()
            answer |= ray.get(task.remote(*arguments))
            end = time.time()
            answer |= {"skew": answer.pop("clock") - (start + end) / 2, "skew_error": (end - start) / 2}
        answers.append(answer | {"gpus": node["Resources"].get("GPU", 0)})
    return answers


def _disk(what: str, path: str) -> dict[str, Any]:
    at = Path(path)
    while not at.exists():
        at = at.parent
    usage = shutil.disk_usage(at)
    return {"what": what, "path": path, "free": usage.free, "total": usage.total}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main(storage: str, mark: str) -> None:
    import ray

    ray.init(log_to_driver=False, logging_level="ERROR")
    print(PREFIX + json.dumps(ask(storage, mark)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
