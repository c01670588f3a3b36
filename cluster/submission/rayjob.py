"""A verb as a RayJob on Kubernetes: what it looks like. `kube.py` creates and follows it.

The RayJob brings a cluster of its own, as large as the spec wants from the start or, where it `grows`, as large as work
asks for up to that. The manifests it lives among are in `k8s/`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import UserError

from .submit import JOB

RAY_VERSION = "2.60.0"
GROUP, VERSION = "ray.io", "v1"
MOUNT = "/etc/rehone"
DATA = "/data"
ANNOTATION = "rehone.dev/spec"

MODEL = "rehone.dev/model"
"""Label of every RayJob that is rehone's."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 47  # the operator makes longer ones from it
_MEMORY = re.compile(r"[1-9]\d*(Mi|Gi|Ti)")
_LONGEST_SPEC = 200_000  # bytes; all annotations of a pod together may have 256 KiB
_READY_SECONDS = 1800
_WRITABLE = {"ray": "/tmp/ray", "tmp": "/tmp", "home": "/home/rehone"}  # noqa: S108 - of its own pod, and all of it
_SEALED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True)
class Work:
    """`arguments` run as `rehone ARGUMENTS` on the head; `spec` is the resolved spec's YAML, at `SPEC_FILE` there."""

    name: str
    arguments: Sequence[str]
    spec: str
    model: str
    image: str
    workers: int
    cpus: int
    gpu: bool = False
    memory: str = "8Gi"
    namespace: str = "rehone-training"
    queue: str | None = None
    claim: str | None = None
    """A PersistentVolumeClaim with the data, mounted read-only at `DATA`."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Keys of the spec that name a file: each has to lie in the claim."""
    deadline_seconds: int = 86400
    job: str = ""
    """The Ray job's id; the RayJob's name unless given."""
    retries: int = 1
    grows: bool = False
    """Workers come when work waits for them and go when they are idle."""


SPEC_FILE = f"{MOUNT}/spec.yaml"


def new_name(model: str, verb: str) -> str:
    """A RayJob's name that nobody has yet."""
    return _name(model, verb, secrets.token_hex(4))


def name_of(model: str, verb: str, job: str) -> str:
    """The RayJob's name of a job's id, always the same: ids may be longer than names."""
    return _name(model, verb, hashlib.sha256(job.encode()).hexdigest()[:12])


def _name(model: str, verb: str, last: str) -> str:
    room = _LONGEST_NAME - len(f"rehone---{verb}{last}")
    return f"rehone-{model[:room].rstrip('-')}-{verb}-{last}"


def rayjob(work: Work) -> dict[str, Any]:
    """The RayJob as the API server takes it. Raises UserError for what it or the operator would refuse."""
    _check(work)
    labels = {"app.kubernetes.io/part-of": "rehone", MODEL: work.model}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {
            "name": work.name,
            "namespace": work.namespace,
            "labels": labels | ({"kueue.x-k8s.io/queue-name": work.queue} if work.queue else {}),
        },
        "spec": {
            "entrypoint": shlex.join(["rehone", *work.arguments]),
            "jobId": work.job or work.name,
            "metadata": {"kind": work.arguments[0], "model": work.model},
            "runtimeEnvYAML": json.dumps({"env_vars": {JOB: work.job or work.name}}),
            "submissionMode": "K8sJobMode",
            "submitterPodTemplate": _submitter(work),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "backoffLimit": work.retries,
            "activeDeadlineSeconds": work.deadline_seconds,
            "preRunningDeadlineSeconds": min(_READY_SECONDS, work.deadline_seconds),
            "rayClusterSpec": _cluster(work),
        },
    }


def _check(work: Work) -> None:
    if not _NAME.fullmatch(work.name) or len(work.name) > _LONGEST_NAME:
        raise UserError(
            f"{work.name!r} is no name of a RayJob",
            where="--name",
            mend=f"up to {_LONGEST_NAME} of a-z, 0-9 and -, a letter first",
        )
    if not _MEMORY.fullmatch(work.memory):
        raise UserError(f"{work.memory!r} is no amount of memory", where="--memory", mend="for example 8Gi")
    if work.deadline_seconds < 1:
        raise UserError("must be at least a second", where="--deadline")
    if len(work.spec.encode()) > _LONGEST_SPEC:
        raise UserError(f"the spec is larger than {_LONGEST_SPEC} bytes", where=work.model)
    if work.grows and work.queue:
        raise UserError("a queue admits what has a size, and --grow has none", where="--queue", mend="one of the two")
    for key, path in work.paths.items():
        if work.claim is None or not path.startswith(f"{DATA}/"):
            raise UserError(
                f"{path} is a file of this machine, which a pod does not see",
                where=key,
                mend=f"put it on a volume claim, name that with --data-claim and write {DATA}/... in the spec",
            )


def _cluster(work: Work) -> dict[str, Any]:
    head = {"requests": {"cpu": "1", "memory": work.memory}, "limits": {"memory": work.memory}}
    template = _pod(work, "ray-head", head)
    if work.grows:
        template["spec"]["automountServiceAccountToken"] = True  # the autoscaler asks the API server for pods
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": "rehone-ray-token"},
        **(_growing() if work.grows else {}),
        "headGroupSpec": {
            # The verb itself runs here; its work goes to the workers.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104 - in its pod
            "template": template,
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if work.gpu else "cpu",
                "replicas": 0 if work.grows else work.workers,
                "minReplicas": 0 if work.grows else work.workers,
                "maxReplicas": work.workers,
                "rayStartParams": {"num-cpus": str(work.cpus)},
                "template": _pod(work, "ray-worker", _size(work), gpu=work.gpu),
            }
        ],
    }


def _growing() -> dict[str, Any]:
    """Ray's autoscaler beside the head. It writes its log where the dashboard reads it."""
    seccomp = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            "securityContext": _SEALED | seccomp,
            "volumeMounts": [{"name": volume, "mountPath": _WRITABLE[volume]} for volume in ("ray", "tmp")],
        },
    }


def _size(work: Work) -> dict[str, Any]:
    gpu = {"nvidia.com/gpu": "1"} if work.gpu else {}
    return {
        "requests": {"cpu": str(work.cpus), "memory": work.memory, **gpu},
        "limits": {"memory": work.memory, **gpu},
    }


def _pod(work: Work, name: str, resources: Mapping[str, Any], *, gpu: bool = False) -> dict[str, Any]:
    """A Ray node's pod. The spec travels as an annotation, so that one object holds the job whole."""
    container = _container(work, name, resources)
    container |= {
        "envFrom": [
            {"configMapRef": {"name": "rehone-environment"}},
            {"configMapRef": {"name": "rehone-place"}},
            {"secretRef": {"name": "rehone-storage"}},
        ],
        "ports": [{"name": "metrics", "containerPort": 8080}],
    }
    container["volumeMounts"].append({"name": "spec", "mountPath": MOUNT, "readOnly": True})
    annotated = {"path": "spec.yaml", "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}}
    pod = _secured([container])
    pod["volumes"].append({"name": "spec", "downwardAPI": {"items": [annotated]}})
    if work.claim:
        container["volumeMounts"].append({"name": "data", "mountPath": DATA, "readOnly": True})
        pod["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": work.claim, "readOnly": True}})
    if gpu:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"metadata": {"annotations": {ANNOTATION: work.spec}}, "spec": pod}


def _submitter(work: Work) -> dict[str, Any]:
    size = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    return {"spec": _secured([_container(work, "ray-job-submitter", size)]) | {"restartPolicy": "Never"}}


def _container(work: Work, name: str, resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image": work.image,
        "resources": resources,
        "securityContext": _SEALED,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in _WRITABLE.items()],
    }


def _secured(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """What pod security `restricted` asks of a pod, and folders that its containers may write to."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [{"name": volume, "emptyDir": {}} for volume in _WRITABLE],
    }
