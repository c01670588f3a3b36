"""The definitions' own rules: all can be read, and what they are there for is refused."""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from . import cel
from .schemas import ROOT, Object, overlay, validate, validate_change


def _one(kind: str) -> Object:
    return copy.deepcopy(next(thing for thing in overlay("production") if thing["kind"] == kind))


def _rules(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        given = value.get("x-kubernetes-validations")
        yield from (rule["rule"] for rule in given or [] if isinstance(given, list))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _rules(inner)


@pytest.mark.parametrize("group", ["ray.io", "kueue.x-k8s.io", "gateway.networking.k8s.io"])
def test_every_rule_is_compiled(group: str) -> None:
    with tarfile.open(ROOT / "tests/k8s/crds/definitions.tar.xz") as archive:
        files = [archive.extractfile(name) for name in archive.getnames() if name.startswith(group)]
        rules = {rule for file in files if file for rule in _rules(yaml.load(file, yaml.CSafeLoader))}
    assert len(rules) >= 2
    for rule in rules:
        cel._program(rule)


def _listener(thing: Object) -> Object:
    return thing["spec"]["listeners"][0]


def _route(thing: Object) -> Object:
    return thing["spec"]["rules"][0]


REFUSED: dict[str, tuple[str, Callable[[Object], Any]]] = {
    "the managedBy field value must be either": ("RayCluster", lambda t: t["spec"].update(managedBy="me")),
    "managedBy field value must be either": ("RayService", lambda t: t["spec"].update(managedBy="me")),
    "certificateRefs or options must be specified": ("Gateway", lambda t: _listener(t)["tls"].pop("certificateRefs")),
    "tls must not be specified for protocols": ("Gateway", lambda t: _listener(t).update(protocol="HTTP")),
    "Listener name must be unique": ("Gateway", lambda t: t["spec"]["listeners"].append(_listener(t))),
    "must be an absolute path": ("HTTPRoute", lambda t: _route(t)["matches"][0]["path"].update(value="v1")),
    "RequestRedirect filter must not be used together with backendRefs": ("HTTPRoute", lambda t: _route(t).update(filters=[{"type": "RequestRedirect", "requestRedirect": {"hostname": "x.org"}}])),
    "flavors must have the same number of resources": ("ClusterQueue", lambda t: t["spec"]["resourceGroups"][0]["coveredResources"].append("pods")),
    "supported taint effect values": ("ResourceFlavor", lambda t: t.update(spec={"nodeTaints": [{"key": "gpu", "effect": "Never"}]})),
}  # fmt: skip


@pytest.mark.parametrize("says", REFUSED)
def test_what_a_rule_is_there_for_is_refused(says: str) -> None:
    kind, spoil = REFUSED[says]
    thing = _one(kind)
    validate(thing)
    spoil(thing)
    with pytest.raises(jsonschema.ValidationError, match=says):
        validate(thing)


CHANGES: dict[str, tuple[str, Callable[[Object], Any]]] = {
    "the managedBy field is immutable": ("RayCluster", lambda t: t["spec"].update(managedBy="kueue.x-k8s.io/multikueue")),
    "field is immutable": ("LocalQueue", lambda t: t["spec"].update(clusterQueue="another")),
}  # fmt: skip


@pytest.mark.parametrize("says", CHANGES)
def test_a_change_that_is_not_allowed_is_refused_and_a_new_object_like_it_is_not(says: str) -> None:
    kind, change = CHANGES[says]
    before = _one(kind)
    if kind == "RayCluster":
        before["spec"]["managedBy"] = "ray.io/kuberay-operator"
    after = copy.deepcopy(before)
    validate_change(after, before)
    change(after)
    validate(after)
    with pytest.raises(jsonschema.ValidationError, match=says):
        validate_change(after, before)
