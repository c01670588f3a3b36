"""Ray's job API: submit a command, follow it, ask what runs."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .console import say
from .errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


JOB = "REHONE_JOB"
"""Environment variable by which a verb that runs as a job knows its id."""


@dataclass(frozen=True)
class Job:
    """A Ray Job. `status` is Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""

    submission_id: str
    status: str
    entrypoint: str
    metadata: Mapping[str, str]
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}


class Jobs:
    """Jobs of one cluster. Every call raises ClusterError when the API at `address` does not answer or cannot do it."""

    def __init__(self, address: str) -> None:
        self.address = address

    @contextmanager
    def _client(self) -> Iterator[JobSubmissionClient]:
        from ray.job_submission import JobSubmissionClient

        try:
            yield JobSubmissionClient(self.address)
        except OSError as error:
            raise ClusterError(
                f"no Ray job API answers at {self.address}",
                mend="start one with `rehone serve SPEC` or `ray start --head`, or pass --address",
            ) from error
        except RuntimeError as error:  # Ray's word for an answer that is an error
            raise ClusterError(str(error).splitlines()[0], where=self.address) from error

    def submit(
        self,
        arguments: Sequence[str],
        submission_id: str,
        environment: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> str:
        """Run `rehone ARGUMENTS` as a job. A `submission_id` that exists is left as it is: never two of one."""
        if self.get(submission_id) is not None:
            return submission_id
        with self._client() as client:
            return str(
                client.submit_job(
                    entrypoint=shlex.join([sys.executable, "-m", "rehone", *arguments]),
                    submission_id=submission_id,
                    runtime_env={"env_vars": {**environment, JOB: submission_id}},
                    metadata=dict(metadata),
                )
            )

    def get(self, submission_id: str) -> Job | None:
        return next((job for job in self.list() if job.submission_id == submission_id), None)

    def list(self) -> list[Job]:
        with self._client() as client:
            found = client.list_jobs()
        return [
            Job(
                submission_id=job.submission_id,
                status=str(job.status.value),
                entrypoint=job.entrypoint,
                metadata=job.metadata or {},
                message=job.message or "",
            )
            for job in found
            if job.submission_id is not None
        ]

    def logs(self, submission_id: str) -> str:
        with self._client() as client:
            return str(client.get_job_logs(submission_id))

    def wait(self, submission_id: str, each: Callable[[Job], None] | None = None, period: float = 1.0) -> Job:
        """Until the job has ended. Raises ClusterError when the cluster no longer knows it."""
        while True:
            job = self.get(submission_id)
            if job is None:
                raise ClusterError(f"the cluster at {self.address} no longer knows job {submission_id}")
            if each:
                each(job)
            if job.ended:
                return job
            time.sleep(period)

    def stop(self, submission_id: str) -> None:
        with self._client() as client:
            client.stop_job(submission_id)


def run_and_follow(address: str, arguments: Sequence[str]) -> None:
    """Run a verb as a job and print its log as it comes. Raises ClusterError when the job did not succeed."""
    jobs = Jobs(address)
    submission_id = jobs.submit(arguments, f"rehone-{arguments[0]}-{secrets.token_hex(4)}", {}, {"kind": arguments[0]})
    say(f"job {submission_id} at {address}")
    printed = 0

    def show(_: Job) -> None:
        nonlocal printed
        log = jobs.logs(submission_id)
        print(log[printed:], end="", flush=True)
        printed = len(log)

    job = jobs.wait(submission_id, show)
    show(job)
    if job.status != "SUCCEEDED":
        raise ClusterError(f"job {submission_id} ended {job.status}: {job.message}", where=address)
