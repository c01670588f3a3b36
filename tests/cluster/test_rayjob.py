from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.submission import rayjob as rayjob_
from cluster.submission.rayjob import Work, rayjob
from tests.k8s import kuberay, rules, schemas

WORK = Work(
    name="rehone-tiny-train-1",
    arguments=["train", rayjob_.SPEC_FILE, "--tuned"],
    spec="name: tiny\n",
    model="tiny",
    image="registry.example.com/rehone:0.1.0-cpu",
    workers=3,
    cpus=2,
)
GPU = dataclasses.replace(WORK, gpu=True, queue="rehone", claim="tweets", paths={"data.source": "/data/train.csv"})
GROWING = dataclasses.replace(WORK, grows=True)


@pytest.mark.parametrize("work", [WORK, GPU, GROWING], ids=["cpu", "gpu", "growing"])
def test_a_rayjob_is_what_the_api_server_and_the_operator_take(work: Work) -> None:
    made = rayjob(work)
    schemas.validate(made)
    assert not rules.operator(made)
    assert not rules.restricted(made)
    for where, pod in schemas.pods(made):
        schemas.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": where.lower()}, "spec": pod})


@given(workers=st.integers(1, 500), cpus=st.integers(1, 64), gpu=st.booleans())
def test_the_cluster_is_as_large_as_the_training_from_the_start(workers: int, cpus: int, gpu: bool) -> None:
    work = dataclasses.replace(WORK, workers=workers, cpus=cpus, gpu=gpu)
    (group,) = rayjob(work)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] == workers
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert group["rayStartParams"]["num-cpus"] == resources["requests"]["cpu"] == str(cpus)
    assert resources["limits"].get("nvidia.com/gpu") == ("1" if gpu else None)


def test_one_that_grows_begins_with_its_head_and_stops_at_the_spec_s_size() -> None:
    cluster = rayjob(GROWING)["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, WORK.workers)
    ray, autoscaler = kuberay.head(rayjob(GROWING))["spec"]["containers"]
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert set(map(str, autoscaler["volumeMounts"])) <= set(map(str, ray["volumeMounts"]))


def test_the_job_finds_its_spec_its_data_and_its_name() -> None:
    made = rayjob(GPU)["spec"]
    head = made["rayClusterSpec"]["headGroupSpec"]["template"]
    assert made["entrypoint"] == "rehone train /etc/rehone/spec.yaml --tuned"
    assert head["metadata"]["annotations"][rayjob_.ANNOTATION] == GPU.spec
    assert {m["mountPath"] for m in head["spec"]["containers"][0]["volumeMounts"]} == {
        "/tmp/ray",
        "/tmp",
        "/home/rehone",
        "/etc/rehone",
        "/data",
    }
    assert json.loads(made["runtimeEnvYAML"]) == {"env_vars": {"REHONE_JOB": GPU.name}}
    assert rayjob(GPU)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "rehone"


def test_no_value_of_a_secret_is_in_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, "planted-secret")
    assert "planted-secret" not in json.dumps(rayjob(GPU))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "Has-Capitals"}, "--name: 'Has-Capitals' is no name of a RayJob"),
        ({"name": "x" * 48}, "is no name of a RayJob"),
        ({"memory": "8GB"}, "--memory: '8GB' is no amount of memory"),
        ({"deadline_seconds": 0}, "--deadline"),
        ({"spec": "x" * 200_001}, "larger than"),
        ({"grows": True, "queue": "rehone"}, "--queue: a queue admits what has a size"),
        ({"paths": {"data.source": "/home/me/train.csv"}}, "data.source: /home/me/train.csv is a file of this machine"),
        ({"paths": {"data.source": "/home/me/train.csv"}, "claim": "tweets"}, "write /data/... in the spec"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        rayjob(dataclasses.replace(WORK, **values))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True), st.sampled_from(["train", "tune"]))
def test_every_model_gives_a_name_that_is_taken(model: str, verb: str) -> None:
    made = rayjob(dataclasses.replace(WORK, name=rayjob_.new_name(model, verb), model=model))
    assert not rules.operator(made)


def test_ray_s_version_is_the_one_installed() -> None:
    import ray

    assert ray.__version__ == rayjob_.RAY_VERSION
