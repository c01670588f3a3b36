"""A cluster of one node that stays when the command has ended: `rehone cluster up` and `down`.

It is a real `ray start --head` on free ports, with a token unless told not to: the job API is on the loopback address,
but Ray opens the ports of its own services on all of them. What `down` ends is known by a variable that only this
cluster's processes carry, so other clusters on the machine are left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cluster.console import say
from cluster.errors import ClusterError, NotFoundError, UserError
from cluster.session import NODE_ENVIRONMENT, PROJECT, free_port, ports_of_its_own, worker_environment
from cluster.settings import Settings
from cluster.submission.submit import Jobs

from . import access, certificates
from .certificates import Certificates

_MARK = "REHONE_CLUSTER"
_START_SECONDS, _END_SECONDS = 120.0, 20.0


@dataclass(frozen=True)
class Local:
    """A cluster that `up` has started. `folder` holds Ray's own session and log, and is its mark."""

    pid: int
    address: str
    """Of the job API."""
    gcs: str
    """For `RAY_ADDRESS` and `ray start --address`."""
    folder: str
    token: bool
    tls: str = ""
    """The folder with the certificates that its processes show each other; empty when they show none."""

    @property
    def log(self) -> Path:
        return Path(self.folder) / "head.log"


def up(settings: Settings, *, cpus: int | None = None, token: bool = True, tls: bool = False) -> Local:
    """Start one, unless the one of this storage root runs. Raises ClusterError when it does not come up, and
    UserError when the one that runs has no TLS and is to have it.
    """
    found = running(settings)
    if found is not None:
        if tls and not found.tls:
            raise UserError("runs without TLS", where=found.address, mend="end it first: `rehone cluster down`")
        return found
    if token and (made := access.ensure_token()):
        say(f"made a token in {made}; other machines need a copy of it")
    shown = certificates.of_this_machine() if tls else None
    folder = Path(tempfile.mkdtemp(prefix="rehone-ray-"))
    gcs, dashboard = free_port(), free_port()
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            _command(folder, gcs, dashboard, cpus),
            env=_environment(settings, folder, shown, token=token),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C here does not reach it
        )
    local = Local(
        process.pid,
        f"http://127.0.0.1:{dashboard}",
        f"127.0.0.1:{gcs}",
        str(folder),
        token,
        str(shown.folder) if shown else "",
    )
    _state(settings).parent.mkdir(parents=True, exist_ok=True)
    _state(settings).write_text(json.dumps(asdict(local)), encoding="utf-8")
    _await(local, process, settings)
    return local


def running(settings: Settings) -> Local | None:
    """The cluster of this storage root, if it runs."""
    try:
        kept = Local(**json.loads(_state(settings).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    return kept if any(process.pid == kept.pid for process in _processes(kept)) else None


def find(settings: Settings) -> Local:
    """Raises NotFoundError."""
    found = running(settings)
    if found is None:
        raise NotFoundError(
            "no cluster of this storage root runs here",
            where=settings.storage_root,
            mend="`rehone cluster up` starts one; or pass --address, or set RAY_API_SERVER_ADDRESS",
        )
    return found


def down(settings: Settings) -> Local:
    """End it and all that runs on it. Raises NotFoundError when there is none."""
    try:
        kept = Local(**json.loads(_state(settings).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return find(settings)
    _end(kept)
    _state(settings).unlink()
    shutil.rmtree(kept.folder, ignore_errors=True)  # a log that is still being written
    return kept


def _command(folder: Path, gcs: int, dashboard: int, cpus: int | None) -> list[str]:
    ports = {"--dashboard-agent-listen-port", "--ray-client-server-port", "--metrics-export-port"}
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--dashboard-host=127.0.0.1", f"--temp-dir={folder}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}"),
        *(f"{name}={free_port()}" for name in sorted(ports)),
        f"--num-cpus={cpus or os.cpu_count() or 1}",
    ]


def _environment(settings: Settings, folder: Path, shown: Certificates | None, *, token: bool) -> dict[str, str]:
    """What all its processes inherit, the secrets of this shell among it: there they stay."""
    return {
        **NODE_ENVIRONMENT,  # other machines may join
        **ports_of_its_own(),
        **os.environ,
        **(shown.environment() if shown else {}),
        **worker_environment(settings),
        _MARK: str(folder),
        access.MODE: "token" if token else "disabled",
        "REHONE_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
    }


def _await(local: Local, process: subprocess.Popen[bytes], settings: Settings) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            Jobs(local.address, token=access.kept_token() if local.token else None).list()
        except ClusterError:  # not yet
            time.sleep(0.5)
        else:
            return
    last = local.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    _end(local)
    _state(settings).unlink()
    raise ClusterError(f"the cluster did not start: {''.join(last)}", where=str(local.log))


def _end(local: Local) -> None:
    head = [process for process in _processes(local) if process.pid == local.pid]
    for process in head:
        process.send_signal(signal.SIGTERM)  # Ray then ends its own, jobs included
    psutil.wait_procs(head, timeout=_END_SECONDS)
    left = list(_processes(local))
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_END_SECONDS)


def _processes(local: Local) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == local.folder and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:  # ended meanwhile, or another user's
            continue


def _state(settings: Settings) -> Path:
    """Of this machine, even when the storage root is an object store."""
    return settings.spool_root.parent / "cluster" / "local.json"
