"""Every overlay and component as the API server, pod security and the KubeRay operator would judge it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster import session

from . import kuberay, rules
from .schemas import K8S, OVERLAYS, ROOT, Object, assembled, clusters, overlay, pods, validate

EVERY = pytest.mark.parametrize("name", OVERLAYS)
COMPONENTS = sorted(p.name for p in (K8S / "components").iterdir())


@EVERY
def test_every_object_is_valid(name: str) -> None:
    for thing in overlay(name):
        validate(thing)


@pytest.mark.parametrize("component", [c for c in COMPONENTS if c not in {"stores", "images"}])
def test_every_component_goes_with_development(component: str, tmp_path: Path) -> None:
    for thing in assembled(tmp_path, component):
        validate(thing)
        assert not rules.operator(thing)
        assert not rules.restricted(thing)


def test_all_components_that_go_together(tmp_path: Path) -> None:
    for thing in assembled(tmp_path, *sorted(set(COMPONENTS) - {"stores", "gateway"})):
        validate(thing)
        assert not rules.operator(thing)
        assert not rules.restricted(thing)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", ["spec", "workerGroupSpecs", 0, "maxReplica"], 3),
        ("RayCluster", ["spec", "headGroupSpec", "template", "spec", "containers", 0, "imagePullPolice"], "Always"),
        ("RayService", ["spec", "upgradeStrategy", "type"], 1),
        ("RayService", ["spec", "rayClusterConfig", "authOptions", "mode"], "tokens"),
        ("CronJob", ["spec", "schedules"], "* * * * *"),
        ("NetworkPolicy", ["spec", "policyTypes"], "Ingress"),
    ],
)
def test_what_is_wrong_is_refused(kind: str, path: list[Any], value: Any) -> None:
    thing = copy.deepcopy(_one("dev", kind))
    _set(thing, path, value)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(thing)


@EVERY
def test_every_pod_is_restricted(name: str) -> None:
    faults = [fault for thing in overlay(name) for fault in rules.restricted(thing)]
    assert not faults
    assert sum(len(pods(thing)) for thing in overlay(name)) >= 6


@EVERY
def test_every_pod_is_a_valid_pod(name: str) -> None:
    for thing in overlay(name):
        for where, pod in pods(thing):
            named = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": re.sub(r"[^a-z0-9]+", "-", where.lower())}}
            validate(named | {"spec": pod})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["securityContext", "runAsNonRoot"], False),
        (["securityContext", "seccompProfile"], {"type": "Unconfined"}),
        (["hostNetwork"], True),
        (["containers", 0, "securityContext", "allowPrivilegeEscalation"], True),
        (["containers", 0, "securityContext", "capabilities", "drop"], []),
        (["volumes", 0], {"name": "host", "hostPath": {"path": "/"}}),
    ],
)
def test_a_pod_that_is_not_restricted_is_found(path: list[Any], value: Any) -> None:
    thing = copy.deepcopy(_one("dev", "CronJob"))
    _set(thing["spec"]["jobTemplate"]["spec"]["template"]["spec"], path, value)
    assert rules.restricted(thing)


def test_an_autoscaler_without_its_own_context_is_found() -> None:
    thing = copy.deepcopy(_one("dev", "RayCluster"))
    del thing["spec"]["autoscalerOptions"]["securityContext"]
    assert rules.restricted(thing)


@EVERY
def test_the_operator_takes_it(name: str) -> None:
    assert not [(thing["metadata"]["name"], fault) for thing in overlay(name) for fault in rules.operator(thing)]


def _autoscaled(thing: Object) -> Object:
    return thing["spec"]["workerGroupSpecs"][0]


CLUSTER_FAULTS: dict[str, Callable[[Object], Any]] = {
    "name": lambda t: t["metadata"].update(name="x" * 54),
    "authentication is off": lambda t: t["spec"].update(authOptions={}),
    "enableK8sTokenAuth": lambda t: t["spec"]["authOptions"].update(enableK8sTokenAuth=True),
    "autoscaler v1": lambda t: t["spec"]["autoscalerOptions"].pop("version"),
    "restartPolicy": lambda t: _autoscaled(t)["template"]["spec"].update(restartPolicy="Always"),
    "resources twice": lambda t: _autoscaled(t).update(rayStartParams={"num-cpus": "1"}, resources={"CPU": "1"}),
    "labels in rayStartParams": lambda t: _autoscaled(t).update(rayStartParams={"labels": "a=b"}),
    "replicas": lambda t: _autoscaled(t).update(minReplicas=9),
    "livenessProbe is the operator's": lambda t: _autoscaled(t)["template"]["spec"]["containers"][0].update(livenessProbe={}),
    "redis-password in rayStartParams": lambda t: t["spec"]["headGroupSpec"]["rayStartParams"].update({"redis-password": "x"}),
    "REDIS_PASSWORD in the environment": lambda t: t["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(env=[{"name": "REDIS_PASSWORD", "value": "x"}]),
}  # fmt: skip


@pytest.mark.parametrize("fault", CLUSTER_FAULTS)
def test_what_the_operator_refuses_of_a_cluster_is_found(fault: str) -> None:
    thing = copy.deepcopy(_one("dev", "RayCluster"))
    CLUSTER_FAULTS[fault](thing)
    assert rules.operator(thing) == [fault]


SERVICE_FAULTS: dict[str, Callable[[Object], Any]] = {
    "name": lambda t: t["metadata"].update(name="x" * 48),
    "upgradeStrategy": lambda t: t["spec"]["upgradeStrategy"].update(type="Rolling"),
    "headService name": lambda t: t["spec"]["rayClusterConfig"]["headGroupSpec"].update(headService={"metadata": {"name": "x"}}),
    "incremental upgrade without the autoscaler": lambda t: t["spec"]["rayClusterConfig"].update(enableInTreeAutoscaling=False),
    "gatewayClassName": lambda t: t["spec"]["upgradeStrategy"]["clusterUpgradeOptions"].update(gatewayClassName=""),
    "steps": lambda t: t["spec"]["upgradeStrategy"]["clusterUpgradeOptions"].update(stepSizePercent=80),
    "intervalSeconds": lambda t: t["spec"]["upgradeStrategy"]["clusterUpgradeOptions"].update(intervalSeconds=0),
}  # fmt: skip


@pytest.fixture(scope="module")
def incremental(tmp_path_factory: pytest.TempPathFactory) -> Object:
    made = assembled(tmp_path_factory.mktemp("overlay"), "incremental-upgrade")
    return next(thing for thing in made if thing["kind"] == "RayService")


@pytest.mark.parametrize("fault", SERVICE_FAULTS)
def test_what_the_operator_refuses_of_a_service_is_found(fault: str, incremental: Object) -> None:
    assert not rules.operator(incremental)
    thing = copy.deepcopy(incremental)
    SERVICE_FAULTS[fault](thing)
    assert rules.operator(thing) == [fault]


@EVERY
def test_what_is_named_is_there(name: str) -> None:
    things = overlay(name)
    there = {(t["kind"], t["metadata"].get("namespace"), t["metadata"]["name"]) for t in things}
    asked = set(re.findall(r"^\| `(rehone-[a-z-]+)` \|", (K8S / "README.md").read_text(), re.MULTILINE))
    assert asked
    for thing in things:
        place = thing["metadata"].get("namespace")
        for kind, named in _named(thing.get("spec", {})):
            known = (kind, place, named) in there or (kind == "Secret" and named in asked)
            assert known, f"{thing['kind']} {thing['metadata']['name']} names {kind} {named}, which is not in {place}"
    if name == "dev":
        assert asked - {"rehone-gcs", "rehone-gateway-certificate"} <= {n for k, _, n in there if k == "Secret"}


@EVERY
def test_network_policies_are_closed_by_default_and_let_in_who_must_come_in(name: str) -> None:
    spaces = {t["metadata"]["name"] for t in overlay(name) if t["kind"] == "Namespace"}
    policies = [t for t in overlay(name) if t["kind"] == "NetworkPolicy"]
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {p["metadata"]["namespace"] for p in policies if p["spec"] == closed} == spaces
    assert len(spaces) == 3
    for policy in policies:
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            assert rule.get("from") or rule.get("to"), f"{policy['metadata']['name']} lets anybody"


@EVERY
def test_the_controller_may_make_rayjobs_in_training_and_nothing_else(name: str) -> None:
    things = [t for t in overlay(name) if t["kind"] in {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}]
    assert sorted((t["kind"], t["metadata"]["namespace"]) for t in things) == [
        ("Role", "rehone-training"),
        ("RoleBinding", "rehone-training"),
    ]
    role = next(t for t in things if t["kind"] == "Role")
    assert [(r["apiGroups"], r["resources"]) for r in role["rules"]] == [(["ray.io"], ["rayjobs"])]
    assert "*" not in role["rules"][0]["verbs"]


@EVERY
def test_versions_are_the_lock_s(name: str) -> None:
    locked = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None and locked.group(1) == version("ray")
    for thing in overlay(name):
        cluster = clusters(thing)
        if cluster is not None:
            assert cluster["rayVersion"] == version("ray")
    images = {c["image"] for t in overlay(name) for _, pod in pods(t) for c in pod["containers"]} - {"operator's"}
    ours = {image for image in images if "/rehone:" in image}
    assert {image.rpartition(":")[2] for image in ours} <= {f"{version('rehone')}-cpu", f"{version('rehone')}-cuda"}
    assert ours and all(image.startswith("registry.example.com/") for image in images)


@EVERY
def test_serve_takes_its_configuration_and_finds_room_for_the_replicas(name: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    service = _one(name, "RayService")
    spec, where = service["spec"], service["metadata"]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = schema.applications
    (deployment,) = application.deployments
    assert deployment.model_fields_set == {"name", "num_replicas"}  # what a replica takes is what its spec says
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] >= deployment.num_replicas
    assert schema.http_options.host == "0.0.0.0"
    # KubeRay names its Service after the RayService.
    reached = f"http://{where['name']}-serve-svc.{where['namespace']}:{schema.http_options.port}"
    assert application.args["url"] == reached


@EVERY
@pytest.mark.parametrize("asker", ["training", "control"])
def test_who_promotes_a_version_reaches_the_replicas(name: str, asker: str) -> None:
    policies = [t for t in overlay(name) if t["kind"] == "NetworkPolicy"]
    assert any(
        rule["ports"] == [{"protocol": "TCP", "port": 8000}]
        and rule["to"][0]["namespaceSelector"]["matchLabels"] == {"rehone.dev/role": "serving"}
        for policy in policies
        if policy["metadata"]["namespace"] == f"rehone-{asker}"
        for rule in policy["spec"].get("egress", [])
        if "ports" in rule
    )
    (http,) = (p for p in policies if p["metadata"]["name"] == "http")
    (let_in,) = http["spec"]["ingress"]
    roles = [e for peer in let_in["from"] for e in peer["namespaceSelector"].get("matchExpressions", [])]
    assert asker in roles[0]["values"]


def test_pods_have_the_environment_that_rehone_sets_elsewhere() -> None:
    (made,) = yaml.safe_load((K8S / "base/common/kustomization.yaml").read_text())["configMapGenerator"]
    written = (K8S / "base/common/environment.env").read_text().splitlines()
    lines = [line.split("=", 1) for line in [*written, *made["literals"]] if line and not line.startswith("#")]
    assert dict(lines) == session._ENVIRONMENT | session.NODE_ENVIRONMENT, (
        "k8s/base/common and cluster/session.py differ"
    )


@EVERY
def test_a_pod_that_can_write_nowhere_has_folders_to_write_to(name: str) -> None:
    sealed = 0
    for thing in overlay(name):
        for where, pod in pods(thing):
            for container in [c for c in pod["containers"] if c["image"] != "operator's"]:
                mounts = {m["mountPath"] for m in container.get("volumeMounts", [])}
                ours = container["image"].partition(":")[0].endswith("/rehone") and "command" not in container
                assert not ours or {"/tmp", "/tmp/ray", "/home/rehone"} <= mounts, where
                sealed += container["securityContext"]["readOnlyRootFilesystem"]
    assert sealed >= 5


@EVERY
def test_the_autoscaler_writes_where_the_dashboard_reads(name: str) -> None:
    pod = kuberay.head(_one(name, "RayCluster"))
    ray, autoscaler = ({m["mountPath"]: m["name"] for m in c["volumeMounts"]} for c in pod["spec"]["containers"])
    assert ray["/tmp/ray"] == autoscaler["/tmp/ray"]


@EVERY
def test_what_runs_by_the_clock_needs_nothing_of_the_api_server(name: str) -> None:
    jobs = {t["metadata"]["name"]: t["spec"] for t in overlay(name) if t["kind"] == "CronJob"}
    assert set(jobs) == {"rehone-watch", "rehone-tidy"}
    for job in jobs.values():
        assert job["jobTemplate"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
        assert job["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize(("components", "tag"), [((), "cpu"), (("gpu", "images"), "cuda")], ids=["cpu", "gpu"])
def test_a_watch_that_makes_rayjobs_may_and_names_the_image_of_training(
    components: tuple[str, ...], tag: str, tmp_path: Path
) -> None:
    things = assembled(tmp_path, "retrain-rayjobs", *components)
    job = next(t for t in things if t["kind"] == "CronJob" and t["metadata"]["name"] == "rehone-watch")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][-1] == "--kubernetes" and pod["automountServiceAccountToken"] is True
    assert pod["serviceAccountName"] == "rehone-controller"
    (image,) = container["env"]  # nothing of the standing cluster's job API is left
    assert image == {"name": "REHONE_IMAGE", "value": f"registry.example.com/rehone:{version('rehone')}-{tag}"}


def test_each_worker_that_serves_has_a_gpu_where_that_is_asked_for(tmp_path: Path) -> None:
    things = assembled(tmp_path, "gpu-serving", "images")
    (service,) = (thing for thing in things if thing["kind"] == "RayService")
    validate(service)
    cluster = service["spec"]["rayClusterConfig"]
    head, worker = (group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    image = f"registry.example.com/rehone:{version('rehone')}-cuda"
    assert [pod["containers"][0]["image"] for pod in (head, worker)] == [image, image]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["tolerations"]


def test_one_kind_a_file() -> None:
    for file in K8S.rglob("*.yaml"):
        read = list(yaml.safe_load_all(file.read_text()))
        assert len(read) == 1, file
        if isinstance(read[0], dict) and "kind" in read[0] and file.name != "kustomization.yaml":
            kind = read[0]["kind"].lower()
            assert kind in file.name or kind == "namespace", f"{file} holds a {kind}"


def test_every_kustomization_is_used() -> None:
    used = {K8S / "overlays" / name for name in OVERLAYS}
    for file in K8S.rglob("kustomization.yaml"):
        read = yaml.safe_load(file.read_text())
        for entry in [*read.get("resources", []), *read.get("components", [])]:
            path = (file.parent / entry).resolve()
            assert path.exists(), f"{file} names {entry}"
            used.add(path)
        for patch in read.get("patches", []):
            used.add((file.parent / patch["path"]).resolve())
    alone = {
        K8S / "components" / name for name in ("gpu-serving", "incremental-upgrade", "retrain-rayjobs", "tls")
    }  # for the user to add
    assert {f.parent.resolve() for f in K8S.rglob("kustomization.yaml")} - {p.resolve() for p in used} == alone


def _one(name: str, kind: str) -> Object:
    return next(thing for thing in overlay(name) if thing["kind"] == kind)


def _set(thing: Any, path: list[Any], value: Any) -> None:
    for key in path[:-1]:
        thing = thing[key]
    thing[path[-1]] = value


_REFERENCES = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMap": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "secretName": "Secret",
    "certificateRefs": "Secret",
    "serviceAccountName": "ServiceAccount",
    "serviceName": "Service",
}


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """Every (kind, name) that a tree takes for granted in its own namespace."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _REFERENCES:
                every = inner if isinstance(inner, list) else [inner]
                yield from ((_REFERENCES[key], one if isinstance(one, str) else one["name"]) for one in every)
            else:
                yield from _named(inner)


def test_the_dashboard_is_json_with_panels() -> None:
    data = json.loads((K8S / "components/monitoring/dashboard.json").read_text())
    assert len({p["id"] for p in data["panels"]}) == len(data["panels"]) > 5
