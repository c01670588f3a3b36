"""The verbs that run elsewhere, from Python: submit, follow, wait, stop. `docs/python.md` shows how it is used.

from cluster.sdk import Cluster

job = Cluster("http://head:8265").submit("train", "spec.yaml")
job.wait()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.nodes.doctor import Finding
from cluster.submission.follow import Follower, raise_unless_succeeded
from cluster.submission.submit import Job, Jobs, Resources

from .errors import NotFoundError
from .nodes import doctor, examine, local
from .settings import Settings
from .submission import remote


@dataclass(frozen=True)
class Submitted:
    """One job of a cluster, running or ended."""

    cluster: Cluster
    id: str

    @property
    def job(self) -> Job:
        """How it stands now. Raises NotFoundError, ClusterError."""
        return self.cluster.find(self.id)

    def logs(self) -> str:
        """What it has printed so far, standard output and error in one. Raises ClusterError."""
        return self.cluster.api.logs(self.id)

    def follow(self, write: Callable[[str], object] | None = None) -> Job:
        """Hand on the log as it comes until the job has ended, whatever its end. Raises ClusterError.

        `write` gets text with its line ends, each character once however often the connection is lost; `print` when
        not given.
        """
        job = self.cluster.find(self.id)
        follower = Follower(self.cluster.api, job.submission_id)
        if write is not None:
            follower.write = write
        return follower.run()

    def wait(self) -> Job:
        """Until it has succeeded. Raises JobFailedError, whose `exit_code` is the verb's own, and ClusterError."""
        job = self.follow(lambda _: None)
        raise_unless_succeeded(job, self.cluster.address)
        return job

    def stop(self) -> None:
        """Ask it to end: SIGTERM, a few seconds later SIGKILL. Raises ClusterError."""
        self.cluster.api.stop(self.cluster.find(self.id).submission_id)


class Cluster:
    """A Ray cluster with a job API at `address`.

    Without an address it is the one of `RAY_API_SERVER_ADDRESS`, or else the one that `rehone cluster up` has started
    for this storage root; NotFoundError when there is neither. `settings` are the environment's unless given.
    """

    def __init__(self, address: str | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self.address = (address or self.settings.address or local.find(self.settings).address).rstrip("/")
        self.api = Jobs(self.address)

    def submit(
        self,
        verb: str,
        spec: str | os.PathLike[str] | None = None,
        *arguments: str,
        overrides: Sequence[str] = (),
        resources: Resources | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Submitted:
        """Pack the folder of the spec, send it and run `rehone VERB SPEC --set OVERRIDE... ARGUMENTS...` there.

        Raises UserError for what may not be sent, ClusterError when the cluster does not take it. `metadata` is kept
        with the job and shown to everybody: no secrets.
        """
        request = remote.Request(
            verb,
            None if spec is None else Path(spec),
            tuple(overrides),
            arguments,
            resources or Resources(),
            {"code": _code(), **(metadata or {})},
        )
        return Submitted(self, remote.send(request, self.address, self.settings))

    def jobs(self) -> list[Job]:
        """All jobs that the cluster knows, oldest first. Raises ClusterError."""
        return self.api.list()

    def job(self, submission_id: str) -> Submitted:
        """Raises NotFoundError."""
        return Submitted(self, self.find(submission_id).submission_id)

    def find(self, submission_id: str) -> Job:
        """Raises NotFoundError."""
        found = self.api.get(submission_id)
        if found is None:
            raise NotFoundError(f"no job {submission_id!r}", where=self.address, mend="see `rehone jobs list`")
        return found

    def doctor(self, *, gpus: float = 0) -> list[Finding]:
        """What is wrong with it, worst first; empty when nothing is. `gpus`: how many are wanted."""
        return doctor.check(examine.gather(self.address, self.settings, gpus=gpus))


def _code() -> str:
    try:
        return version("rehone")
    except PackageNotFoundError:
        return "unknown"
