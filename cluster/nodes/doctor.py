"""What usually goes wrong with a cluster, and the mend of each: pure checks over what `examine.py` has gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

SKEW_SECONDS = 2.0
"""More than this and rows of the journal and prediction log are put into the wrong order, and TLS may fail."""
FULL, NEARLY_FULL = 0.95, 0.85
"""Shares of a disk. Ray itself stops spilling and writing at 0.95."""
_MINOR = 2  # figures of a version: Python 3.11.4 and 3.11.9 go together


@dataclass(frozen=True)
class Disk:
    """One file system as a node sees it. `what` names its use."""

    what: str
    path: str
    free: int
    """Bytes."""
    total: int
    """Bytes."""

    @property
    def used(self) -> float:
        return 1 - self.free / self.total if self.total else 0


@dataclass(frozen=True)
class Node:
    """A node as a task on it found it. `answered` is False when no task ran there in time."""

    name: str
    answered: bool = True
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """python, ray and rehone; None for one that is not installed."""
    skew: float = 0
    """Seconds that its clock is ahead of the head's."""
    skew_error: float = 0
    """Seconds by which that may be wrong."""
    disks: tuple[Disk, ...] = ()
    gpus: float = 0
    storage: str = ""
    """Why it does not reach the storage root; empty when it does."""


@dataclass(frozen=True)
class Facts:
    """What a check may look at."""

    address: str
    reached: bool
    """Whether anything answers at the address."""
    refused: bool = False
    """Whether it asked for a token that is not here."""
    open: bool = False
    """Whether it answers without a token to whoever asks."""
    loopback: bool = False
    """Whether the address is of this machine only."""
    fault: str = ""
    """Why the nodes could not be asked."""
    client: Mapping[str, str | None] = field(default_factory=dict)
    """This machine's versions."""
    nodes: tuple[Node, ...] = ()
    storage: str = ""
    local_storage: bool = True
    shared: bool = False
    """Whether a local storage root is declared to be shared."""
    gpus_wanted: float = 0


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. An `error` will stop a job; a `warning` may."""

    severity: Literal["error", "warning"]
    check: str
    where: str
    what: str
    mend: str


Check = Callable[[Facts], Iterator[Finding]]


def check(facts: Facts) -> list[Finding]:
    """Everything that is wrong, errors first. When the API does not answer nothing else can be known."""
    checks = CHECKS if facts.reached and not facts.refused else (port, token)
    found = [finding for one in checks for finding in one(facts)]
    return sorted(found, key=lambda finding: finding.severity)


def port(facts: Facts) -> Iterator[Finding]:
    if not facts.reached:
        mend = "is it running (`rehone cluster status`)? open the port in the firewall, or forward it: "
        mend += "`kubectl port-forward svc/NAME-head-svc 8265`, `ssh -L 8265:localhost:8265 HEAD`"
        yield Finding("error", "port", facts.address, "no Ray job API answers", mend)


def token(facts: Facts) -> Iterator[Finding]:
    if facts.refused:
        mend = (
            "copy the cluster's to ~/.ray/auth_token, or name it with RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token"
        )
        yield Finding("error", "token", facts.address, "asks for a token that is not here, or has another one", mend)
    elif facts.open:
        mend = "start it with RAY_AUTH_MODE=token and a token on every node; `rehone cluster up` does so"
        severity: Literal["error", "warning"] = "warning" if facts.loopback else "error"
        yield Finding(
            severity, "token", facts.address, "asks for no token: who reaches it can run anything there", mend
        )


def nodes(facts: Facts) -> Iterator[Finding]:
    if facts.fault:
        mend = "`rehone jobs list` shows the job that asked, `rehone jobs logs ID` why it failed"
        yield Finding("error", "nodes", facts.address, f"its nodes could not be asked: {facts.fault}", mend)
    for node in facts.nodes:
        if not node.answered:
            mend = "open the ports between nodes (`ray start --help`: node manager, object manager, workers), or end it"
            yield Finding("error", "nodes", node.name, "runs no task, though the cluster holds it for alive", mend)


def versions(facts: Facts) -> Iterator[Finding]:
    for node in _answering(facts):
        for name, here in facts.client.items():
            there = node.versions.get(name)
            if there is None:
                mend = f"install {name} {here} in the image or environment of the nodes"
                yield Finding("error", "versions", node.name, f"{name} is not installed", mend)
            elif here is not None and _differ(name, here, there):
                mend = f"the same {name} here and there: install {there} here, or {here} on the nodes"
                yield Finding("error", "versions", node.name, f"{name} {there}, here {here}", mend)


def storage(facts: Facts) -> Iterator[Finding]:
    mend = "set REHONE_STORAGE to an object store, or to a folder that all nodes mount with REHONE_STORAGE_SHARED=1"
    if facts.local_storage and len(facts.nodes) > 1 and not facts.shared:
        what = f"a folder on one node, and the cluster has {len(facts.nodes)}"
        yield Finding("error", "storage", facts.storage, what, mend)
    for node in _answering(facts):
        if node.storage:
            to = mend if facts.local_storage else "give the nodes the credentials and endpoint, as environment or files"
            yield Finding("error", "storage", node.name, f"does not reach {facts.storage}: {node.storage}", to)


def gpu(facts: Facts) -> Iterator[Finding]:
    has = sum(node.gpus for node in facts.nodes)
    if has < facts.gpus_wanted:
        mend = "add a node with GPUs (`ray start --num-gpus`), or want fewer: scaling.use_gpu, serving.gpus"
        what = f"the spec wants {facts.gpus_wanted:g} GPUs, the cluster has {has:g}"
        yield Finding("error", "gpu", facts.address, what, mend)


def clocks(facts: Facts) -> Iterator[Finding]:
    for node in _answering(facts):
        sure = abs(node.skew) - node.skew_error  # what is left when the journey of the question explains what it can
        if sure > SKEW_SECONDS:
            which = "ahead of" if node.skew > 0 else "behind"
            what = f"its clock is {abs(node.skew):.1f} s {which} the head's"
            yield Finding("error", "clocks", node.name, what, "run a time service there: chrony or systemd-timesyncd")


def disks(facts: Facts) -> Iterator[Finding]:
    for node in _answering(facts):
        for disk in node.disks:
            if disk.used >= NEARLY_FULL:
                what = f"{disk.path} ({disk.what}) is {disk.used:.0%} full, {disk.free / 2**30:.1f} GiB free"
                severity: Literal["error", "warning"] = "error" if disk.used >= FULL else "warning"
                mend = "remove old sessions under Ray's folder, or old dataset versions and runs, or a larger disk"
                yield Finding(severity, "disks", node.name, what, mend)


CHECKS: tuple[Check, ...] = (port, token, nodes, versions, storage, gpu, clocks, disks)


def _answering(facts: Facts) -> Iterator[Node]:
    return (node for node in facts.nodes if node.answered)


def _differ(name: str, here: str, there: str) -> bool:
    """Python's patch releases go together; Ray and rehone only with themselves."""
    if name == "python":
        return here.split(".")[:_MINOR] != there.split(".")[:_MINOR]
    return here != there
