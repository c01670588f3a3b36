from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import show
from cluster.nodes import doctor
from cluster.nodes.doctor import Disk, Facts, Node

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "rehone": "0.1.0"}
NODE = Node("10.0.0.1", versions=VERSIONS, disks=(Disk("Ray's folder", "/tmp", 50, 100),), skew=0.1, skew_error=0.01)
WELL = Facts(
    "http://head:8265",
    reached=True,
    client=VERSIONS,
    nodes=(NODE, replace(NODE, name="10.0.0.2")),
    storage="s3://bucket",
    local_storage=False,
)


def with_node(**values: object) -> Facts:
    return replace(WELL, nodes=(NODE, replace(NODE, name="10.0.0.2", **values)))


def the_one(facts: Facts) -> doctor.Finding:
    (found,) = doctor.check(facts)
    return found


def test_a_cluster_that_is_well_has_nothing() -> None:
    assert doctor.check(WELL) == []
    assert show.findings([], WELL.address) == "http://head:8265 is well"


def test_a_closed_port_is_all_that_can_be_said() -> None:
    found = the_one(Facts("http://head:8265", reached=False, gpus_wanted=4))
    assert (found.severity, found.check) == ("error", "port")
    assert "kubectl port-forward" in found.mend


def test_a_missing_token() -> None:
    found = the_one(Facts("http://head:8265", reached=True, refused=True, gpus_wanted=4))
    assert (found.severity, found.check) == ("error", "token")
    assert "RAY_AUTH_TOKEN_PATH" in found.mend


@pytest.mark.parametrize(("loopback", "severity"), [(True, "warning"), (False, "error")])
def test_a_cluster_that_asks_for_no_token(loopback: bool, severity: str) -> None:
    found = the_one(replace(WELL, open=True, loopback=loopback))
    assert (found.severity, found.check) == (severity, "token")


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        ("python", "3.12.1", "python 3.12.1, here 3.11.7"),
        ("ray", "2.60.1", "ray 2.60.1, here 2.60.0"),
        ("rehone", "0.2.0", "rehone 0.2.0, here 0.1.0"),
        ("rehone", None, "rehone is not installed"),
    ],
)
def test_another_version_on_a_node(name: str, there: str | None, said: str) -> None:
    found = the_one(with_node(versions=VERSIONS | {name: there}))
    assert (found.check, found.where, found.what) == ("versions", "10.0.0.2", said)
    assert name in found.mend


def test_a_patch_release_of_python_is_no_other_version() -> None:
    assert doctor.check(with_node(versions=VERSIONS | {"python": "3.11.9"})) == []


def test_no_shared_storage() -> None:
    local = replace(WELL, storage="/store", local_storage=True)
    found = the_one(local)
    assert (found.check, found.what) == ("storage", "a folder on one node, and the cluster has 2")
    assert "REHONE_STORAGE_SHARED=1" in found.mend
    assert doctor.check(replace(local, shared=True)) == []
    assert doctor.check(replace(local, nodes=(NODE,))) == []


@pytest.mark.parametrize(("local", "mend"), [(True, "REHONE_STORAGE_SHARED"), (False, "credentials")])
def test_a_node_that_does_not_reach_the_storage_root(local: bool, mend: str) -> None:
    facts = with_node(storage="PermissionError: Forbidden")
    found = the_one(replace(facts, local_storage=local, shared=True))
    assert (found.check, found.where) == ("storage", "10.0.0.2")
    assert "PermissionError: Forbidden" in found.what
    assert mend in found.mend


def test_no_gpu_where_the_spec_wants_one() -> None:
    assert the_one(replace(WELL, gpus_wanted=2)).what == "the spec wants 2 GPUs, the cluster has 0"
    assert doctor.check(replace(with_node(gpus=2), gpus_wanted=2)) == []


@pytest.mark.parametrize(("skew", "word"), [(5.0, "ahead of"), (-5.0, "behind")])
def test_a_clock_that_is_wrong(skew: float, word: str) -> None:
    found = the_one(with_node(skew=skew, skew_error=0.1))
    assert (found.check, found.what) == ("clocks", f"its clock is 5.0 s {word} the head's")


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert doctor.check(with_node(skew=5, skew_error=4)) == []


@pytest.mark.parametrize(("free", "severity"), [(3, "error"), (12, "warning"), (16, None)])
def test_a_full_disk(free: int, severity: str | None) -> None:
    facts = with_node(disks=(Disk("storage root", "/store", free, 100),))
    assert [found.severity for found in doctor.check(facts)] == ([severity] if severity else [])
    if severity:
        assert f"/store (storage root) is {100 - free}% full" in the_one(facts).what


def test_a_node_that_runs_no_task_is_the_only_thing_known_of_it() -> None:
    found = the_one(with_node(answered=False, versions={}, skew=99, storage="x"))
    assert (found.check, found.where) == ("nodes", "10.0.0.2")


def test_nodes_that_could_not_be_asked() -> None:
    assert the_one(replace(WELL, nodes=(), fault="job x ended FAILED")).what.endswith("job x ended FAILED")


def test_errors_come_first_and_each_has_its_mend_below() -> None:
    found = doctor.check(replace(WELL, open=True, loopback=True, gpus_wanted=1))
    assert [one.severity for one in found] == ["error", "warning"]
    lines = show.findings(found, WELL.address).splitlines()
    assert lines[0].startswith("error    gpu")
    assert lines[1].strip().startswith("mend: ")
