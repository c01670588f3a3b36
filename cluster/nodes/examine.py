"""Gathers what `doctor.py` checks: asks the job API from here, and each node by a small job there (`probe.py`)."""

from __future__ import annotations

import ipaddress
import json
import secrets
import shlex
import socket
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.errors import ClusterError
from cluster.session import remote_environment
from cluster.settings import Settings
from cluster.store import shared
from cluster.submission.submit import THERE, Jobs

from . import access, probe
from .doctor import Disk, Facts, Node

_SECONDS = 10.0


def gather(address: str, settings: Settings, *, gpus: float = 0) -> Facts:
    """Facts of the cluster at `address`. Raises nothing of the cluster's: that is what the facts are for."""
    known: dict[str, Any] = {
        "address": address,
        "loopback": _is_loopback(address),
        "client": probe.here(settings.storage_root, "", tempfile.gettempdir())["versions"],
        "storage": settings.storage_root,
        "local_storage": settings.is_local,
        "shared": bool(settings.storage_shared),
        "gpus_wanted": gpus,
    }
    with_token = _status(address, access.bearer(access.token()))
    if with_token is None or with_token in {401, 403}:
        return Facts(**known, reached=with_token is not None, refused=with_token is not None)
    known |= {"reached": True, "open": _status(address, {}) == httpx.codes.OK}
    try:
        return Facts(**known, nodes=_asked(address, settings))
    except ClusterError as error:
        return Facts(**known, fault=error.what)


def _status(address: str, headers: Mapping[str, str]) -> int | None:
    """What the job API answers; None when nothing does."""
    try:
        return httpx.get(f"{address}/api/jobs/", headers=headers, timeout=_SECONDS).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def _asked(address: str, settings: Settings) -> tuple[Node, ...]:
    jobs, submission_id = Jobs(address), f"rehone-doctor-{secrets.token_hex(4)}"
    mark = shared.sent_with(settings, submission_id).get(shared.SENT, "")
    at = shared.MARKS + "/" + mark if mark else ""
    with tempfile.TemporaryDirectory(prefix="rehone-") as folder:
        package = Path(folder) / "probe.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.write(Path(probe.__file__), "probe.py")
        jobs.submit_command(
            f"{THERE} probe.py {shlex.quote(settings.storage_root)} {shlex.quote(at)}",
            submission_id,
            remote_environment(settings),
            {"kind": "doctor"},
            package=package,
        )
    job, log = jobs.wait(submission_id), jobs.logs(submission_id)
    for line in log.splitlines():
        if line.startswith(probe.PREFIX):
            return tuple(_node(answer) for answer in json.loads(line.removeprefix(probe.PREFIX)))
    raise ClusterError(f"job {submission_id} ended {job.status} without an answer: {job.message.partition(chr(10))[0]}")


def _node(answer: Mapping[str, Any]) -> Node:
    return Node(**{**answer, "disks": tuple(Disk(**disk) for disk in answer.get("disks", ()))})
