"""Where retrainings run: as jobs of a Ray cluster that stands, or as RayJobs that bring one each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cluster.console import say
from cluster.session import worker_environment
from cluster.submission import kube, rayjob
from cluster.submission.submit import Jobs
from jobs import on_kubernetes, specfile
from jobs.on_kubernetes import Manner
from jobs.pipeline import Place
from jobs.spec import Spec

if TYPE_CHECKING:
    from kubernetes.client import CustomObjectsApi

VERB = "retrain"


class Launcher(Protocol):
    """Both raise ClusterError when the cluster does not answer or refuses."""

    def launch(self, submission_id: str) -> None:
        """Start the retraining of an id; one of that id is left as it is."""

    def status(self, submission_id: str) -> str | None:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED, as Ray has it; None where there is no such job."""


@dataclass(frozen=True)
class StandingCluster:
    """Ray's job API there."""

    spec: Spec
    place: Place
    jobs: Jobs

    def launch(self, submission_id: str) -> None:
        say(f"retraining as job {submission_id}")
        self.jobs.submit(
            [VERB, stored(self.spec, self.place)],
            submission_id,
            worker_environment(self.place.settings),
            {"model": self.spec.name, "kind": VERB},
        )

    def status(self, submission_id: str) -> str | None:
        job = self.jobs.get(submission_id)
        return job.status if job else None


@dataclass(frozen=True)
class Kubernetes:
    """RayJobs, made through the API server.

    None is tried again by the operator: a challenger that the gate refused would be made twice. When a retraining
    failed, the policy says whether there is another.
    """

    spec: Spec
    api: CustomObjectsApi
    manner: Manner

    def launch(self, submission_id: str) -> None:
        kube.clear(self.api, self.manner.namespace, self.spec.name)
        name = self._name(submission_id)
        say(f"retraining {submission_id} as RayJob {self.manner.namespace}/{name}")
        work = on_kubernetes.work(self.spec, VERB, self.manner, name, job=submission_id, retries=0)
        kube.create(self.api, rayjob.rayjob(work))

    def status(self, submission_id: str) -> str | None:
        return kube.status(self.api, self.manner.namespace, self._name(submission_id))

    def _name(self, submission_id: str) -> str:
        return rayjob.name_of(self.spec.name, VERB, submission_id)


def stored(spec: Spec, place: Place) -> str:
    """The resolved spec under the storage root, where a job finds it."""
    text = specfile.dump(spec).encode()
    # By its very words: two specs of one hash may name files in different places.
    path = f"specs/{spec.name}/{hashlib.sha256(text).hexdigest()[:12]}.yaml"
    place.storage.write_bytes(path, text)
    return place.storage.url(path)
