"""Ray's job API: submit a command, ask what runs, stop it. Following a job's log is in `follow.py`."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, UserError
from cluster.nodes import access
from cluster.session import prepare_environment

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


JOB = "REHONE_JOB"
"""Environment variable by which a verb that runs as a job knows its id."""

THERE = '"${REHONE_PYTHON:-python}"'
"""Python of a cluster on another machine, as its shell finds it."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(|[KMGT]i?B?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Resources:
    """What the verb itself takes on the cluster, beside its workers. Zero reserves nothing."""

    cpus: float = 0
    gpus: float = 0
    memory: int = 0
    """Bytes."""

    @classmethod
    def parse(cls, text: str) -> Resources:
        """From `cpus=1,gpus=0.5,memory=2GiB`. Raises UserError."""
        values: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, amount = (word.strip() for word in part.partition("="))
            found = _AMOUNT.fullmatch(amount)
            if name not in {"cpus", "gpus", "memory"} or not found or (found[2] and name != "memory"):
                raise UserError(f"{part!r} is no resource", where="--resources", mend="for example cpus=1,memory=2GiB")
            values[name] = (
                float(found[1]) * (1024 if "i" in found[2].lower() else 1000) ** _POWERS[found[2][:1].lower()]
            )
        return cls(values.get("cpus", 0), values.get("gpus", 0), int(values.get("memory", 0)))

    def options(self) -> dict[str, float]:
        """As Ray's `submit_job` takes them."""
        given = {
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_num_gpus": self.gpus,
            "entrypoint_memory": self.memory,
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Job:
    """A Ray Job. `status` is Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""

    submission_id: str
    status: str
    entrypoint: str
    metadata: Mapping[str, str]
    message: str = ""
    started: float | None = None
    """Unix seconds."""
    ended_at: float | None = None
    """Unix seconds."""
    driver_exit_code: int | None = None
    """Of the command itself; None when it never ran or did not end by itself."""

    @property
    def ended(self) -> bool:
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}

    @property
    def exit_code(self) -> int:
        """What the verb would have answered here: its own code, 128 + signal when it was killed, else 1."""
        if self.status == "SUCCEEDED":
            return 0
        code = self.driver_exit_code
        if self.status == "STOPPED" or not code:
            return 1
        return code if code > 0 else 128 - code


class Jobs:
    """Jobs of one cluster.

    Raises UserError for an address that is no URL. Every call raises ClusterError when the API there does not answer or
    cannot do it, and UserError when it wants a token that is not here. `token` is
    this machine's unless given.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        if not address.startswith(("http://", "https://")):  # Ray would take it for something else, and wait
            raise UserError("is no address of a job API", where=address, mend="as in http://head:8265")
        self.address = address.rstrip("/")
        self.headers = access.bearer(token or access.token())

    @contextmanager
    def _client(self) -> Iterator[JobSubmissionClient]:
        prepare_environment()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        # It tells of each upload, and sets its own level when it is imported.
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
        try:
            yield JobSubmissionClient(self.address, headers=dict(self.headers))
        except AuthenticationError as error:
            raise UserError(
                "no token or another one than the cluster's",
                where=self.address,
                mend=f"put it into {access.TOKEN}, a file named by {access.TOKEN_PATH}, or ~/.ray/auth_token",
            ) from error
        except OSError as error:
            raise ClusterError(
                f"no Ray job API answers at {self.address}",
                mend="start one with `rehone cluster up`, or pass --address",
            ) from error
        except RuntimeError as error:  # Ray's word for an answer that is an error
            raise ClusterError(str(error).splitlines()[0], where=self.address) from error

    def submit(
        self,
        arguments: Sequence[str],
        submission_id: str,
        environment: Mapping[str, str],
        metadata: Mapping[str, str],
        *,
        python: str | None = None,
        package: Path | None = None,
        resources: Resources | None = None,
    ) -> str:
        """Run `rehone ARGUMENTS` as a job. A `submission_id` that exists is left as it is: never two of one.

        `python` is a shell word (`THERE` for a cluster elsewhere), this very interpreter when not given. `package` is
        a zip file that becomes the job's folder. Everything here is shown by the job API: no secrets.
        """
        command = f"{python or shlex.quote(sys.executable)} -m rehone {shlex.join(arguments)}"
        return self.submit_command(command, submission_id, environment, metadata, package=package, resources=resources)

    def submit_command(
        self,
        command: str,
        submission_id: str,
        environment: Mapping[str, str],
        metadata: Mapping[str, str],
        *,
        package: Path | None = None,
        resources: Resources | None = None,
    ) -> str:
        """The same for any shell command."""
        if self.get(submission_id) is not None:
            return submission_id
        runtime: dict[str, Any] = {"env_vars": {**access.sendable(environment), JOB: submission_id}}
        if package is not None:
            runtime["working_dir"] = str(package)
        with self._client() as client:
            return str(
                client.submit_job(
                    entrypoint=command,
                    submission_id=submission_id,
                    runtime_env=runtime,
                    metadata=dict(metadata),
                    **(resources or Resources()).options(),
                )
            )

    def get(self, submission_id: str) -> Job | None:
        return next((job for job in self.list() if job.submission_id == submission_id), None)

    def find(self, submission_id: str) -> Job:
        """Raises ClusterError when there is no such job."""
        found = self.get(submission_id)
        if found is None:
            raise ClusterError(
                f"the cluster at {self.address} no longer knows job {submission_id}",
                mend="`rehone jobs list` shows what it knows; what the job kept is on the storage root",
            )
        return found

    def list(self) -> list[Job]:
        """Oldest first."""
        with self._client() as client:
            found = client.list_jobs()
        made = [
            Job(
                submission_id=job.submission_id,
                status=str(job.status.value),
                entrypoint=job.entrypoint,
                metadata=job.metadata or {},
                message=job.message or "",
                started=job.start_time / 1000 if job.start_time else None,
                ended_at=job.end_time / 1000 if job.end_time else None,
                driver_exit_code=job.driver_exit_code,
            )
            for job in found
            if job.submission_id is not None
        ]
        return sorted(made, key=lambda job: job.started or 0)

    def logs(self, submission_id: str) -> str:
        with self._client() as client:
            return str(client.get_job_logs(submission_id))

    def wait(self, submission_id: str, each: Callable[[Job], None] | None = None, period: float = 1.0) -> Job:
        """Until the job has ended. Raises ClusterError when the cluster no longer knows it."""
        while True:
            job = self.find(submission_id)
            if each:
                each(job)
            if job.ended:
                return job
            time.sleep(period)

    def stop(self, submission_id: str) -> None:
        with self._client() as client:
            client.stop_job(submission_id)
