"""Manifests judged as the API server would: core kinds by Kubernetes' own schemas, the others by their definitions.

Those of KubeRay, Kueue, the Prometheus operator and the Gateway API are in `crds/`, with their rules in CEL.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from . import cel

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "gpu", "production")
KUBERNETES = "1.34"

Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    """What kustomize makes of a folder. Skips without it."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is here: no manifest was rendered")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def overlay(name: str) -> list[Object]:
    return render(K8S / "overlays" / name)


def assembled(folder: Path, *components: str) -> list[Object]:
    """The dev overlay with further components, from a kustomization written to `folder`."""
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / "overlays" / "dev", folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return render(folder)


_fine: set[str] = set()


def validate(thing: Object) -> None:
    """Raises what the schema's validator raises: unknown keys are refused as well. What was fine once is again."""
    written = json.dumps(thing, sort_keys=True)
    if written not in _fine:
        _validate(thing)
        _fine.add(written)


def _validate(thing: Object) -> None:
    group, _, version = thing["apiVersion"].rpartition("/")
    if group in _CUSTOM:
        schema = definition(group, version, thing["kind"])
        value = with_defaults(schema, _without_nulls(thing))
        jsonschema.Draft202012Validator(schema).validate(value)
        refuse(cel.faults(schema, value))
    else:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def validate_change(thing: Object, old: Object) -> None:
    """What `validate` raises, and the rules on what may become of an object that is there."""
    validate(thing)
    group, _, version = thing["apiVersion"].rpartition("/")
    if group in _CUSTOM:
        schema = definition(group, version, thing["kind"])
        before, after = (with_defaults(schema, _without_nulls(one)) for one in (old, thing))
        refuse(cel.faults(schema, after, before))


def refuse(faults: list[str]) -> None:
    if faults:
        raise jsonschema.ValidationError("; ".join(faults))


_CUSTOM = {"ray.io", "kueue.x-k8s.io", "monitoring.coreos.com", "gateway.networking.k8s.io"}


@functools.cache
def definition(group: str, version: str, kind: str) -> Object:
    """The schema of a custom resource, closed to what it does not name."""
    with tarfile.open(ROOT / "tests/k8s/crds/definitions.tar.xz") as archive:
        file = archive.extractfile(f"{group}_{kind.lower()}s.yaml")
        assert file is not None
        read = yaml.load(file, yaml.CSafeLoader)
    found = [v for v in read["spec"]["versions"] if v["name"] == version]
    assert found, f"{kind} has no version {version}"
    schema: Object = found[0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    _close(schema)
    return schema


def _close(schema: Object) -> None:
    """Forbid what is not named, and read `int-or-string` as the API server does."""
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for child in _children(schema):
        _close(child)


def _children(schema: Object) -> Iterator[Object]:
    yield from schema.get("properties", {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def with_defaults(schema: Object, value: Any) -> Any:
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        other = schema.get("additionalProperties")
        made = {k: p["default"] for k, p in properties.items() if "default" in p} | value
        return {
            k: with_defaults(properties.get(k, other if isinstance(other, dict) else {}), v) for k, v in made.items()
        }
    return [with_defaults(schema.get("items", {}), v) for v in value] if isinstance(value, list) else value


def pods(thing: Object) -> list[tuple[str, Object]]:
    """(what it is, pod spec) of every pod that the object makes, the operator's containers included."""
    where = f"{thing['kind']} {thing['metadata']['name']}"
    spec = thing.get("spec", {})
    if thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
        return [(where, spec["template"]["spec"])]
    if thing["kind"] == "CronJob":
        return [(where, spec["jobTemplate"]["spec"]["template"]["spec"])]
    submitter = [(f"{where} submitter", spec["submitterPodTemplate"]["spec"])] if thing["kind"] == "RayJob" else []
    cluster = clusters(thing)
    return [*submitter, *(_ray_pods(where, cluster) if cluster else [])]


def _ray_pods(where: str, cluster: Object) -> list[tuple[str, Object]]:
    head = dict(cluster["headGroupSpec"]["template"]["spec"])
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster["autoscalerOptions"]
        autoscaler = {
            "name": "autoscaler",
            "securityContext": options.get("securityContext", {}),
            "image": "operator's",
        }
        head["containers"] = [*head["containers"], autoscaler | {"resources": options["resources"]}]
    groups = [(f"{where} {g['groupName']}", g["template"]["spec"]) for g in cluster["workerGroupSpecs"]]
    return [(f"{where} head", head), *groups]


def clusters(thing: Object) -> Object | None:
    """The Ray cluster's spec in a RayCluster, RayJob or RayService."""
    key = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    if thing["kind"] not in key:
        return None
    inner = key[thing["kind"]]
    return thing["spec"] if inner is None else thing["spec"][inner]
