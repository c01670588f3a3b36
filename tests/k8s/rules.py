"""What the API server's schemas do not say: pod security `restricted`, and the KubeRay 1.7 operator's own refusals.

Each is a function from an object to its faults, so that a test can show a fault being found.
"""

from __future__ import annotations

import re
from typing import Any

from .schemas import Object, clusters, pods

_NAMES = {"RayCluster": 53, "RayJob": 47, "RayService": 47}


def restricted(thing: Object) -> list[str]:
    """Faults of the object's pods under Kubernetes' pod security standard `restricted`."""
    return [f"{where}: {fault}" for where, pod in pods(thing) for fault in _pod_faults(pod)]


def _pod_faults(pod: Object) -> list[str]:
    faults = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    faults += [f"volume {v['name']}" for v in pod.get("volumes", []) if not allowed & set(v)]
    above = pod.get("securityContext", {})
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = container.get("securityContext", {})
        merged = above | own
        name = container["name"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            faults.append(f"{name} may escalate")
        if "ALL" not in own.get("capabilities", {}).get("drop", []) or own.get("capabilities", {}).get("add"):
            faults.append(f"{name} has capabilities")
        if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
            faults.append(f"{name} may be root")
        if merged.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            faults.append(f"{name} has no seccomp profile")
    return faults


def operator(thing: Object) -> list[str]:
    """Faults that the operator finds in one of Ray's kinds, or that it takes silently and we do not."""
    cluster = clusters(thing)
    if cluster is None:
        return []
    kind, name, spec = thing["kind"], thing["metadata"]["name"], thing["spec"]
    faults = []
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > _NAMES[kind]:
        faults.append("name")
    faults += _cluster_faults(cluster)
    if kind == "RayJob":
        faults += _job_faults(spec)
    if kind == "RayService":
        faults += _service_faults(spec, cluster)
    return faults


def _cluster_faults(cluster: Object) -> list[str]:
    faults = []
    if cluster.get("authOptions", {}).get("mode") != "token":
        faults.append("authentication is off")
    if cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
        faults.append("enableK8sTokenAuth")
    scales = cluster.get("enableInTreeAutoscaling", False)
    if scales and cluster.get("autoscalerOptions", {}).get("version") != "v2":
        faults.append("autoscaler v1")
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        faults += _group_faults(group, scales=scales)
    return faults + _head_faults(cluster)


def _group_faults(group: Object, *, scales: bool) -> list[str]:
    faults = []
    pod, parameters = group["template"]["spec"], group.get("rayStartParams", {})
    if scales and pod.get("restartPolicy", "Never") != "Never":
        faults.append("restartPolicy")
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(parameters):
        faults.append("resources twice")
    if "labels" in parameters:
        faults.append("labels in rayStartParams")
    low, high = group.get("minReplicas", 0), group.get("maxReplicas", 1 << 31)
    if low < 0 or low > high:
        faults.append("replicas")
    probes = [p for c in pod["containers"] for p in ("livenessProbe", "readinessProbe", "startupProbe") if p in c]
    return faults + [f"{probe} is the operator's" for probe in probes]


def _head_faults(cluster: Object) -> list[str]:
    head = cluster["headGroupSpec"]
    environment = {e["name"] for c in head["template"]["spec"]["containers"] for e in c.get("env", [])}
    faults = [f"{n} in the environment" for n in environment & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}]
    if "redis-password" in head.get("rayStartParams", {}):
        faults.append("redis-password in rayStartParams")
    return faults


def _job_faults(spec: Object) -> list[str]:
    faults = []
    selects, side = "clusterSelector" in spec, spec.get("submissionMode") == "SidecarMode"
    if spec.get("submissionMode", "K8sJobMode") not in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}:
        faults.append("submissionMode")
    if not spec.get("shutdownAfterJobFinishes") and spec.get("ttlSecondsAfterFinished", 0) > 0:
        faults.append("ttl without shutdown")
    if spec.get("suspend") and (not spec.get("shutdownAfterJobFinishes") or selects):
        faults.append("suspend")
    if selects and (side or spec.get("backoffLimit", 0) > 0):
        faults.append("clusterSelector")
    if side and "submitterPodTemplate" in spec:
        faults.append("submitterPodTemplate in SidecarMode")
    if spec.get("deletionStrategy", {}).get("deletionRules") and spec.get("shutdownAfterJobFinishes"):
        faults.append("deletionRules and shutdown")
    return faults + [key for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds") if spec.get(key, 1) < 1]


def _service_faults(spec: Object, cluster: Object) -> list[str]:
    strategy = spec.get("upgradeStrategy", {})
    kind = strategy.get("type", "NewCluster")
    faults = [] if kind in {"NewCluster", "None", "NewClusterWithIncrementalUpgrade"} else ["upgradeStrategy"]
    if "name" in cluster["headGroupSpec"].get("headService", {}).get("metadata", {}):
        faults.append("headService name")
    if kind != "NewClusterWithIncrementalUpgrade":
        return faults
    options: dict[str, Any] = strategy.get("clusterUpgradeOptions", {})
    if not cluster.get("enableInTreeAutoscaling"):
        faults.append("incremental upgrade without the autoscaler")
    if not options.get("gatewayClassName"):
        faults.append("gatewayClassName")
    if not 0 <= options.get("stepSizePercent", -1) <= options.get("maxSurgePercent", 100) <= 100:
        faults.append("steps")
    if options.get("intervalSeconds", 0) <= 0:
        faults.append("intervalSeconds")
    return faults
