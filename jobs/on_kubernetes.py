"""What a verb on a spec asks of Kubernetes: the RayJob's `Work`."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.submission.rayjob import SPEC_FILE, Work

from . import specfile
from .spec import Spec


@dataclass(frozen=True)
class Manner:
    """What people say of every RayJob, whatever runs in it; `rehone submit --help` has the words."""

    image: str
    namespace: str = "rehone-training"
    queue: str | None = None
    claim: str | None = None
    memory: str = "8Gi"
    deadline_seconds: int = 86400
    grows: bool = False


def workers(spec: Spec, verb: str) -> int:
    """Ray nodes beside the head that the verb can fill."""
    return spec.sweep.concurrent * spec.sweep.workers if verb == "tune" else spec.scaling.most_workers


def work(
    spec: Spec, verb: str, manner: Manner, name: str, *, more: tuple[str, ...] = (), job: str = "", retries: int = 1
) -> Work:
    """`rehone VERB SPEC MORE` as a RayJob called `name`; its job is called `job`, or the same."""
    return Work(
        name=name,
        job=job,
        arguments=[verb, SPEC_FILE, *more],
        spec=specfile.dump(spec),
        model=spec.name,
        image=manner.image,
        workers=workers(spec, verb),
        cpus=spec.scaling.cpus_per_worker,
        gpu=spec.scaling.use_gpu,
        memory=manner.memory,
        namespace=manner.namespace,
        queue=manner.queue,
        claim=manner.claim,
        paths=_paths(spec, verb),
        deadline_seconds=manner.deadline_seconds,
        retries=retries,
        grows=manner.grows,
    )


def _paths(spec: Spec, verb: str) -> dict[str, str]:
    """Files of this machine that the verb reads."""
    named = {"base_model": spec.base_model, "evaluation.anchor": spec.evaluation.anchor}
    if verb != "retrain":  # which has its rows from the storage root
        named |= {"data.source": spec.data.source, "data.corrections": spec.data.corrections}
    return {key: path for key, path in named.items() if path and path.startswith("/")}
