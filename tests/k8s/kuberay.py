"""What the KubeRay 1.7 operator makes of a Ray cluster: its pods, with the `ray start` that each runs.

Written after `ray-operator/controllers/ray/common/pod.go` (Apache-2.0): parameters, environment, the autoscaler beside
the head, the container that waits for the head, probes. TLS and the pods of several hosts are left out.
"""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from .schemas import Object, clusters

PORT = "6379"
_SHELL = ["/bin/bash", "-c", "--"]
_SWITCHES_WITH_A_VALUE = {"log-color", "include-dashboard", "include-log-monitor"}


def expand(thing: Object) -> list[Object]:
    """The pods of one of Ray's kinds: its head, of each group as many workers as it begins with and at least one, and the
    Job by which a RayJob is submitted. Of other kinds none: those show their pods themselves.
    """
    cluster = clusters(thing)
    if cluster is None:
        return []
    groups = [(group, max(1, group.get("replicas", 0))) for group in cluster["workerGroupSpecs"]]
    workers = [worker(thing, group["groupName"], number) for group, count in groups for number in range(count)]
    return [head(thing), *workers, *([_submitter(thing)] if thing["kind"] == "RayJob" else [])]


def _submitter(thing: Object) -> Object:
    meta = {"name": f"{thing['metadata']['name']}-submitter", "namespace": thing["metadata"]["namespace"]}
    spec = copy.deepcopy(thing["spec"]["submitterPodTemplate"]["spec"])
    command = f"ray job submit --address http://{service(thing)}:8265 -- {thing['spec']['entrypoint']}"
    container = spec["containers"][0] | {"command": ["/bin/bash"], "args": ["-ce", "--", command]}
    container["env"] = _authenticated(_cluster(thing)["authOptions"])
    template = {"spec": spec | {"containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}


def service(thing: Object) -> str:
    """The name by which workers reach the head."""
    meta = thing["metadata"]
    return f"{meta['name']}-head-svc.{meta['namespace']}.svc.cluster.local"


def account(thing: Object) -> list[Object]:
    """Role and binding of the autoscaler's service account, which is called as the cluster is."""
    meta = {key: thing["metadata"][key] for key in ("name", "namespace")}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
        {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
    ]
    who = {"kind": "ServiceAccount", **meta}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]}
    return [
        {"kind": "Role", "metadata": meta, "rules": rules},
        {"kind": "RoleBinding", "metadata": meta, "subjects": [who], "roleRef": role},
    ]


def head(thing: Object) -> Object:
    cluster = _cluster(thing)
    group = cluster["headGroupSpec"]
    parameters = {"dashboard-host": "0.0.0.0"} | group.get("rayStartParams", {})
    redis = _redis(thing, cluster)
    if any(one["name"] == "REDIS_PASSWORD" for one in redis):
        parameters["redis-password"] = "$REDIS_PASSWORD"
    scales = cluster.get("enableInTreeAutoscaling", False)
    if scales:
        parameters["no-monitor"] = "true"
    pod = _pod(thing, group, "head", "headgroup", f"{thing['metadata']['name']}-head")
    container = pod["spec"]["containers"][0]
    container.setdefault("env", []).extend(redis)
    if scales:
        container["env"].append({"name": "RAY_enable_autoscaler_v2", "value": "true"})
        pod["spec"]["containers"].append(_autoscaler(cluster, container))
        for one in pod["spec"]["containers"]:
            _empty(pod["spec"], one, "ray-logs", "/tmp/ray", {})
        pod["spec"] |= {"restartPolicy": "Never", "serviceAccountName": thing["metadata"]["name"]}
    return _started(pod, ["ray", "start", "--head"], parameters, "127.0.0.1")


def worker(thing: Object, group: str, number: int) -> Object:
    cluster, address = _cluster(thing), service(thing)
    spec = next(one for one in cluster["workerGroupSpecs"] if one["groupName"] == group)
    parameters = {"address": f"{address}:{PORT}"} | spec.get("rayStartParams", {})
    pod = _pod(thing, spec, "worker", group, f"{thing['metadata']['name']}-{group}-worker-{number}")
    container = pod["spec"]["containers"][0]
    waits = copy.deepcopy({key: container[key] for key in ("image", "securityContext") if key in container})
    waits |= {"name": "wait-gcs-ready", "command": _SHELL, "args": [f"ray health-check --address {address}:{PORT}"]}
    waits |= {"volumeMounts": copy.deepcopy(container.get("volumeMounts", []))}
    little = {"cpu": "200m", "memory": "256Mi"}
    pod["spec"]["initContainers"] = [waits | {"resources": {"limits": little, "requests": little}}]
    if cluster.get("enableInTreeAutoscaling"):
        pod["spec"]["restartPolicy"] = "Never"
    if "gcsFaultToleranceOptions" in cluster:
        container.setdefault("env", []).append({"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"})
    return _started(pod, ["ray", "start"], parameters, address)


def _cluster(thing: Object) -> Object:
    cluster = clusters(thing)
    assert cluster is not None, thing["kind"]
    return cluster


def _pod(thing: Object, group: Object, kind: str, name: str, pod_name: str) -> Object:
    template = copy.deepcopy(group["template"])
    cluster, auth = _cluster(thing), _cluster(thing)["authOptions"]
    labels = {
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": thing["metadata"]["name"],
        "ray.io/node-type": kind,
        "ray.io/group": name,
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    meta = template.get("metadata", {})
    meta |= {"name": pod_name, "namespace": thing["metadata"]["namespace"], "labels": meta.get("labels", {}) | labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    assert not {"labels", "numOfHosts"} & set(group), "not among what is written here"
    assert not cluster.get("tlsOptions", {}).get("enabled"), "not among what is written here"
    container = pod["spec"]["containers"][0]
    container["env"] = [*container.get("env", []), *_authenticated(auth)]
    _empty(pod["spec"], container, "shared-mem", "/dev/shm", {"medium": "Memory"})
    container |= _probes(kind, serves=thing["kind"] == "RayService")
    return pod


def _probes(kind: str, *, serves: bool) -> Object:
    asks = {"httpGet": {"path": "/api/healthz", "port": 52365}, "timeoutSeconds": 5 if kind == "head" else 2}
    asks |= {"periodSeconds": 5, "successThreshold": 1}
    ready = asks | {"initialDelaySeconds": 10, "failureThreshold": 10}
    if serves and kind == "worker":
        wget = "wget --tries 1 -T {} -q -O- http://localhost:{} | grep success"
        both = f"{wget.format(2, '52365/api/local_raylet_healthz')} && {wget.format(10, '8000/-/healthz')}"
        del ready["httpGet"]
        ready |= {"exec": {"command": ["bash", "-c", both]}, "failureThreshold": 1}
    return {"livenessProbe": asks | {"initialDelaySeconds": 30, "failureThreshold": 120}, "readinessProbe": ready}


def _authenticated(options: Object) -> list[Object]:
    secret = {"name": options["secretName"], "key": "auth_token"}
    token = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}}
    return [{"name": "RAY_AUTH_MODE", "value": options["mode"]}, token]


def _redis(thing: Object, cluster: Object) -> list[Object]:
    options = cluster.get("gcsFaultToleranceOptions")
    if options is None:
        return []
    password = {"name": "REDIS_PASSWORD", **options["redisPassword"]}
    where = {"name": "RAY_REDIS_ADDRESS", "value": options["redisAddress"]}
    return [{"name": "RAY_external_storage_namespace", "value": thing["metadata"]["name"]}, where, password]


def _empty(spec: Object, container: Object, name: str, path: str, how: Object) -> None:
    """A folder of the pod's own at the path, unless something is mounted there."""
    mounts = container.setdefault("volumeMounts", [])
    if any(mount["mountPath"] == path for mount in mounts):
        return
    mounts.append({"name": name, "mountPath": path})
    volumes = spec.setdefault("volumes", [])
    if all(volume["name"] != name for volume in volumes):
        volumes.append({"name": name, "emptyDir": how})


def _autoscaler(cluster: Object, beside: Object) -> Object:
    options = cluster["autoscalerOptions"]
    small = {"cpu": "500m", "memory": "512Mi"}
    command = "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) --cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
    return {
        "name": "autoscaler",
        "image": beside["image"],
        "command": _SHELL,
        "args": [command],
        "env": [
            *_place(),
            _from_field("RAY_HEAD_POD_NAME", "metadata.name"),
            {"name": "KUBERAY_CRD_VER", "value": "v1"},
            *_authenticated(cluster["authOptions"]),
        ],
        "resources": options.get("resources", {"limits": small, "requests": small}),
        "volumeMounts": options.get("volumeMounts", []),
    } | ({"securityContext": options["securityContext"]} if "securityContext" in options else {})


def _place() -> list[Object]:
    label = "metadata.labels['ray.io/cluster']"
    return [_from_field("RAY_CLUSTER_NAME", label), _from_field("RAY_CLUSTER_NAMESPACE", "metadata.namespace")]


def _from_field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _started(pod: Object, command: Sequence[str], parameters: dict[str, str], address: str) -> Object:
    """The pod whose first container runs `ray start` with the parameters, and knows what the operator tells it."""
    container = pod["spec"]["containers"][0]
    fixed = {"metrics-export-port": "8080", "block": "true", "dashboard-agent-listen-port": "52365"}
    words = [*command, *_flags(_sized(fixed | parameters | {"block": "true"}, container.get("resources", {})))]
    container |= {"command": _SHELL, "args": ["ulimit -n 65536; " + " ".join(words)]}
    container["env"] += [
        *_place(),
        _from_field("RAY_CLOUD_INSTANCE_ID", "metadata.name"),
        _from_field("RAY_NODE_TYPE_NAME", "metadata.labels['ray.io/group']"),
        {"name": "RAY_PORT", "value": PORT},
        {"name": "RAY_ADDRESS", "value": f"{address}:{PORT}"},
        {"name": "RAY_USAGE_STATS_KUBERAY_IN_USE", "value": "1"},
        {"name": "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE", "value": "1"},
    ]
    return pod


def _sized(parameters: dict[str, str], resources: Object) -> dict[str, str]:
    """CPUs of the limit, else of the request; memory and GPUs of the limit."""
    limits = resources.get("limits", {})
    cpus = limits.get("cpu", resources.get("requests", {}).get("cpu"))
    gpus = next((limits[name] for name in limits if name.endswith("/gpu")), None)
    wanted = {"num-cpus": cpus, "memory": limits.get("memory"), "num-gpus": gpus}
    return {name: _whole(value) for name, value in wanted.items() if value is not None} | parameters


def _whole(quantity: str) -> str:
    return str(math.ceil(parse_quantity(quantity)))


def _flags(parameters: dict[str, str]) -> Iterable[str]:
    for name, value in sorted(parameters.items()):
        if value.lower() not in {"true", "false"} or name in _SWITCHES_WITH_A_VALUE:
            yield f"--{name}={value}"
        elif value.lower() == "true":
            yield f"--{name}"


def environment(pod: Object, container: Object, things: Sequence[Object]) -> dict[str, str]:
    """What the kubelet would start the container with, of the ConfigMaps and Secrets among `things`."""
    made: dict[str, str] = {}
    for source in container.get("envFrom", []):
        ((kind, named),) = source.items()
        made |= _data(pod, things, {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], named["name"])
    for one in container.get("env", []):
        made[one["name"]] = one["value"] if "value" in one else _value(pod, one["valueFrom"], things)
    return made


def _value(pod: Object, source: Object, things: Sequence[Object]) -> str:
    if "fieldRef" in source:
        path: str = source["fieldRef"]["fieldPath"]
        if path.endswith("']"):
            outer, _, key = path.partition("['")
            return str(pod["metadata"][outer.removeprefix("metadata.")][key.removesuffix("']")])
        return str(pod["metadata"][path.removeprefix("metadata.")])
    asked = source["secretKeyRef"]
    return _data(pod, things, "Secret", asked["name"])[asked["key"]]


def _data(pod: Object, things: Sequence[Object], kind: str, name: str) -> dict[str, str]:
    place = pod["metadata"]["namespace"]
    wanted = (kind, name, place)
    found: dict[str, Any] = next(
        t for t in things if (t["kind"], t["metadata"]["name"], t["metadata"].get("namespace")) == wanted
    )
    if kind == "ConfigMap":
        return found["data"]
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
