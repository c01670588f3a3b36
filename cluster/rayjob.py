"""A verb as a RayJob on Kubernetes: what it looks like (pure), and creating and following it through the API server.

The RayJob brings a cluster of its own, as large as the spec wants from the start: training asks for its CPUs once and
does not wait for an autoscaler. The manifests it lives among are in `k8s/`.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import ClusterError, UserError
from .submit import JOB

if TYPE_CHECKING:
    from kubernetes.client import CustomObjectsApi

RAY_VERSION = "2.60.0"
GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
MOUNT = "/etc/rehone"
DATA = "/data"
ANNOTATION = "rehone.dev/spec"

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 47  # the operator makes longer ones from it
_MEMORY = re.compile(r"[1-9]\d*(Mi|Gi|Ti)")
_LONGEST_SPEC = 200_000  # bytes; all annotations of a pod together may have 256 KiB
_READY_SECONDS = 1800


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
    retries: int = 1


SPEC_FILE = f"{MOUNT}/spec.yaml"


def new_name(model: str, verb: str) -> str:
    """A RayJob's name that nobody has yet."""
    return f"rehone-{model[:24].rstrip('-')}-{verb}-{secrets.token_hex(4)}"


def rayjob(work: Work) -> dict[str, Any]:
    """The RayJob as the API server takes it. Raises UserError for what it or the operator would refuse."""
    _check(work)
    labels = {"app.kubernetes.io/part-of": "rehone", "rehone.dev/model": work.model}
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
            "jobId": work.name,
            "metadata": {"kind": work.arguments[0], "model": work.model},
            "runtimeEnvYAML": json.dumps({"env_vars": {JOB: work.name}}),
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
    for key, path in work.paths.items():
        if work.claim is None or not path.startswith(f"{DATA}/"):
            raise UserError(
                f"{path} is a file of this machine, which a pod does not see",
                where=key,
                mend=f"put it on a volume claim, name that with --data-claim and write {DATA}/... in the spec",
            )


def _cluster(work: Work) -> dict[str, Any]:
    head = {"requests": {"cpu": "1", "memory": work.memory}, "limits": {"memory": work.memory}}
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": "rehone-ray-token"},
        "headGroupSpec": {
            # The verb itself runs here; its work goes to the workers.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104 - in its pod
            "template": _pod(work, "ray-head", head),
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if work.gpu else "cpu",
                "replicas": work.workers,
                "minReplicas": work.workers,
                "maxReplicas": work.workers,
                "rayStartParams": {"num-cpus": str(work.cpus)},
                "template": _pod(work, "ray-worker", _size(work), gpu=work.gpu),
            }
        ],
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
        "env": [{"name": "DS_ACCELERATOR", "value": "cuda" if work.gpu else "cpu"}],
        "envFrom": [
            {"configMapRef": {"name": "rehone-environment"}},
            {"configMapRef": {"name": "rehone-place"}},
            {"secretRef": {"name": "rehone-storage"}},
        ],
        "ports": [{"name": "metrics", "containerPort": 8080}],
        "volumeMounts": [
            {"name": "ray", "mountPath": "/tmp/ray"},  # noqa: S108 - where Ray keeps its session
            {"name": "spec", "mountPath": MOUNT, "readOnly": True},
        ],
    }
    annotated = {"path": "spec.yaml", "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}}
    pod = _secured([container])
    pod["volumes"] = [
        {"name": "ray", "emptyDir": {}},
        {"name": "spec", "downwardAPI": {"items": [annotated]}},
    ]
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
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _secured(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """What pod security `restricted` asks of a pod."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
    }


def connect(context: str | None = None) -> CustomObjectsApi:
    """The API of the pod's own cluster inside one, else of the kubeconfig. Raises UserError when there is none."""
    from kubernetes import client, config

    try:
        if context is None:
            config.load_config()
        else:
            config.load_kube_config(context=context)
    except config.ConfigException as error:
        raise UserError(
            f"no Kubernetes cluster is configured: {error}", mend="set KUBECONFIG, or name a --context that it has"
        ) from None
    return client.CustomObjectsApi()


def create(api: CustomObjectsApi, manifest: Mapping[str, Any]) -> bool:
    """Create the RayJob; one of that name is left as it is, and False. Raises UserError, ClusterError."""
    from kubernetes.client import ApiException

    place = manifest["metadata"]["namespace"]
    with _answering(place):
        try:
            api.create_namespaced_custom_object(GROUP, VERSION, place, PLURAL, dict(manifest))
        except ApiException as error:
            if error.status == 409:  # noqa: PLR2004 - HTTP's Conflict
                return False
            raise
    return True


def wait(api: CustomObjectsApi, namespace: str, name: str, each: Callable[[str], None], period: float = 5.0) -> str:
    """Until the RayJob has ended: the job's status, SUCCEEDED when it did. `each` gets each new state.

    Raises ClusterError when the job is gone.
    """
    seen = ""
    while True:
        with _answering(namespace):
            found = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        status = found.get("status", {})
        deployment = status.get("jobDeploymentStatus") or "Waiting for the operator"
        if deployment != seen:
            seen = deployment
            each(f"{name}: {deployment}")
        if deployment in {"Complete", "Failed"}:
            # A job that never ran has no status of its own, only a reason.
            return str(status.get("jobStatus") or status.get("reason") or deployment)
        time.sleep(period)


_MENDS = {
    401: "log in again: the credentials of this context are not accepted",
    403: "ask for the role rehone-controller of that namespace (k8s/base/control/role.yaml)",
    404: "install the KubeRay operator and the namespace first (k8s/README.md)",
}


@contextmanager
def _answering(namespace: str) -> Iterator[None]:
    """An API server's refusal as one line. Raises ClusterError, UserError for what is wrong with the object."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        said = _message(error)
        if error.status in {400, 422}:
            raise UserError(f"the API server refuses the RayJob: {said}", where=namespace) from None
        raise ClusterError(said, where=namespace, mend=_MENDS.get(error.status, "try again")) from None
    except HTTPError as error:
        raise ClusterError(
            f"no Kubernetes API server answers: {str(error).splitlines()[0]}", mend="check the context of KUBECONFIG"
        ) from None


def _message(error: Any) -> str:
    """The server's own words, where its answer is the API's and not some proxy's."""
    try:
        said = json.loads(error.body)["message"]
    except (ValueError, TypeError, KeyError):
        said = error.reason
    return " ".join(str(said).split())[:500]
