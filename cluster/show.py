"""Jobs, clusters and findings as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cluster.nodes.certificates import Certificates
from cluster.nodes.doctor import Finding
from cluster.nodes.local import Local
from cluster.submission.submit import Job


def jobs(found: Sequence[Job]) -> str:
    """A line for each."""
    if not found:
        return "the cluster knows no job"
    return "\n".join(
        f"{job.submission_id:28} {job.status:10} {_when(job.started):20} {job.metadata.get('kind', ''):10} "
        f"{job.metadata.get('model', ''):16} {job.metadata.get('user', '')}".rstrip()
        for job in found
    )


def job(found: Job) -> str:
    return f"job {found.submission_id} {found.status}, exit code {found.exit_code}"


def local(found: Local) -> str:
    """How a cluster of this machine is used."""
    token = "with a token" if found.token else "WITHOUT a token: who reaches this machine can run anything on it"
    lines = [
        f"cluster at {found.address}, {token}",
        f"    export RAY_API_SERVER_ADDRESS={found.address}   # long verbs run there",
    ]
    if found.tls:
        lines.append(f"certificates of {found.tls}; a node or a program that joins at {found.gcs} needs them too:")
        lines += _exports(Certificates(Path(found.tls)))
    return "\n".join([*lines, f"log: {found.log}; `rehone cluster down` ends it"])


def certificate(made: Certificates, names: Sequence[str]) -> str:
    """How a node uses what was made for it."""
    head = f"a certificate for {', '.join(names)} is in {made.folder}; copy the folder there and, before `ray start`:"
    return "\n".join([head, *_exports(made)])


def _exports(certificates: Certificates) -> list[str]:
    return [f"    export {name}={value}" for name, value in certificates.environment().items()]


def findings(found: Sequence[Finding], address: str) -> str:
    """What is wrong and how to mend it."""
    if not found:
        return f"{address} is well"
    return "\n".join(f"{f.severity:8} {f.check:9} {f.where}: {f.what}\n{'':18} mend: {f.mend}" for f in found)


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
