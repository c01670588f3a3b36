from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from cluster import rayjob as rayjob_
from cluster import session
from cluster.errors import ClusterError, UserError
from cluster.rayjob import Work, create, rayjob, wait
from jobs import specfile
from jobs.spec import Spec
from tests.k8s import rules, schemas

from . import api_server
from .api_server import NAMESPACE, TOKEN, State

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


@pytest.fixture
def server() -> Iterator[State]:
    schemas.definitions()  # it validates in a thread of its own, where a skip would be an error
    with api_server.serving() as state:
        yield state


def api(server: State, token: str = TOKEN) -> Any:
    configuration = client.Configuration(host=server.url, api_key={"authorization": f"Bearer {token}"})
    return client.CustomObjectsApi(client.ApiClient(configuration))


@pytest.mark.parametrize("work", [WORK, GPU], ids=["cpu", "gpu"])
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


def test_the_job_finds_its_spec_its_data_and_its_name() -> None:
    made = rayjob(GPU)["spec"]
    head = made["rayClusterSpec"]["headGroupSpec"]["template"]
    assert made["entrypoint"] == "rehone train /etc/rehone/spec.yaml --tuned"
    assert head["metadata"]["annotations"][rayjob_.ANNOTATION] == GPU.spec
    assert {m["mountPath"] for m in head["spec"]["containers"][0]["volumeMounts"]} == {
        "/tmp/ray",
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


def test_created_once_whoever_asks_again(server: State) -> None:
    assert create(api(server), rayjob(WORK)) is True
    assert create(api(server), rayjob(WORK)) is False
    assert list(server.objects) == [WORK.name]


def test_followed_to_its_end(server: State) -> None:
    server.steps[:0] = [{}, {"jobDeploymentStatus": "Initializing"}, {"jobDeploymentStatus": "Running"}]
    create(api(server), rayjob(WORK))
    said: list[str] = []
    assert wait(api(server), NAMESPACE, WORK.name, said.append, period=0) == "SUCCEEDED"
    assert [line.split(": ")[1] for line in said] == ["Waiting for the operator", "Initializing", "Running", "Complete"]


def test_one_that_never_ran_says_why(server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}]
    create(api(server), rayjob(WORK))
    assert wait(api(server), NAMESPACE, WORK.name, lambda _: None, period=0) == "PreRunningDeadlineExceeded"


def test_refusals_are_one_line_with_a_mend(server: State) -> None:
    elsewhere = dataclasses.replace(WORK, namespace="kube-system")
    with pytest.raises(ClusterError, match=r"^kube-system: rayjobs.ray.io is forbidden.*ask for the role"):
        create(api(server), rayjob(elsewhere))
    with pytest.raises(ClusterError, match="credentials of this context"):
        create(api(server, token="nobody"), rayjob(WORK))
    with pytest.raises(ClusterError, match="install the KubeRay operator"):
        wait(api(server), NAMESPACE, "never-made", lambda _: None)
    wrong = rayjob(WORK)
    wrong["spec"]["entrypoints"] = wrong["spec"].pop("entrypoint")
    with pytest.raises(UserError, match=r"the API server refuses the RayJob.*entrypoints"):
        create(api(server), wrong)


def test_nobody_there(server: State) -> None:
    configuration = client.Configuration(host=f"http://127.0.0.1:{session.free_port()}")
    configuration.retries = 0
    with pytest.raises(ClusterError, match="no Kubernetes API server answers"):
        create(client.CustomObjectsApi(client.ApiClient(configuration)), rayjob(WORK))


@pytest.fixture
def user(tmp_path: Path, spec: Spec, server: State) -> Any:
    """Types `rehone submit` with a kubeconfig that leads to the server."""
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))

    def types(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rehone", "submit", "train", str(file), *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "REHONE_IMAGE": ""},
        )

    return types


INSIDE = ["--set", "data.source=/data/train.csv", "--set", "base_model=/data/model", "--data-claim", "tweets"]
IMAGE = ["--image", "registry.example.com/rehone:0.1.0-cpu"]


def test_the_verb_creates_and_waits(user: Any, server: State) -> None:
    done = user("--kubernetes", *INSIDE, *IMAGE, "--name", "my-job", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer == {"name": "my-job", "namespace": NAMESPACE, "created": True, "status": "SUCCEEDED"}
    head = server.objects["my-job"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    sent = specfile.parse(yaml.safe_load(head["metadata"]["annotations"][rayjob_.ANNOTATION]))
    assert sent.data.source == "/data/train.csv"


def test_the_verb_fails_when_the_job_does(user: Any, server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}]
    done = user("--kubernetes", *INSIDE, *IMAGE, "--name", "my-job", "--wait")
    assert done.returncode == 1
    assert "my-job ended FAILED" in done.stderr and "Traceback" not in done.stderr


def test_the_verb_prints_and_sends_nothing(user: Any, server: State) -> None:
    done = user("--kubernetes", *INSIDE, *IMAGE, "--dry-run")
    schemas.validate(yaml.safe_load(done.stdout))
    assert not server.objects


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*INSIDE, *IMAGE], "rehone: say where"),
        (["--kubernetes", *INSIDE], "rehone: --image: no image is named"),
        (["--kubernetes", *IMAGE], "is a file of this machine"),
        (["--kubernetes", *INSIDE, *IMAGE, "--context", "elsewhere"], "no Kubernetes cluster is configured"),
    ],
)
def test_the_verb_says_a_mistake_in_one_line(user: Any, words: list[str], says: str) -> None:
    done = user(*words)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
