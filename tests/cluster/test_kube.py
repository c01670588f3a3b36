"""`rehone submit --kubernetes` and what it is made of, with the official client, against `api_server`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from cluster import session
from cluster.errors import ClusterError, UserError
from cluster.submission import kube
from cluster.submission import rayjob as rayjob_
from cluster.submission.kube import create, wait
from cluster.submission.rayjob import rayjob
from jobs import specfile
from jobs.spec import Spec
from tests.k8s import schemas

from . import api_server
from .api_server import NAMESPACE, TOKEN, State
from .test_rayjob import WORK


@pytest.fixture
def server() -> Iterator[State]:
    with api_server.serving(schemas.overlay("production")) as state:
        yield state


def api(server: State, token: str = TOKEN) -> Any:
    configuration = client.Configuration(host=server.url, api_key={"authorization": f"Bearer {token}"})
    return client.CustomObjectsApi(client.ApiClient(configuration))


def test_created_once_whoever_asks_again(server: State) -> None:
    assert create(api(server), rayjob(WORK)) is True
    assert create(api(server), rayjob(WORK)) is False
    assert list(server.objects) == [WORK.name]


def test_followed_to_its_end(server: State) -> None:
    server.steps[:0] = [{}, {"jobDeploymentStatus": "Initializing"}, {"jobDeploymentStatus": "Running"}]
    create(api(server), rayjob(WORK))
    said: list[str] = []
    assert wait(api(server), NAMESPACE, WORK.name, said.append, pause=0) == "SUCCEEDED"
    assert [line.split(": ")[1] for line in said] == ["Waiting for the operator", "Initializing", "Running", "Complete"]


def _changed(server: State, *statuses: dict[str, str]) -> None:
    """From another thread, once somebody watches."""
    key = ("rayjobs", NAMESPACE, WORK.name)

    def change() -> None:
        while "watch" not in {verb for _, verb, _ in server.asked}:
            time.sleep(0.01)
        for status in statuses:
            server.steps[:] = [status]
            server.put(key, server.kept[key] | {"status": status})

    threading.Thread(target=change, daemon=True).start()


def test_changes_are_told_and_not_asked_for(server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "Running"}]
    create(api(server), rayjob(WORK))
    _changed(server, {"jobDeploymentStatus": "Retrying"}, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    said: list[str] = []
    assert wait(api(server), NAMESPACE, WORK.name, said.append) == "SUCCEEDED"
    assert said == [f"{WORK.name}: {state}" for state in ("Running", "Retrying", "Complete")]
    assert [verb for _, verb, _ in server.asked] == ["create", "get", "watch"]
    assert {user for user, _, _ in server.asked} == {api_server.CONTROLLER}


def test_a_stream_that_cannot_go_on_begins_anew(server: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "_WATCH_SECONDS", 1)
    server.steps[:] = [{"jobDeploymentStatus": "Running"}]
    create(api(server), rayjob(WORK))
    server.forgotten = 1000  # 410 Gone at every version
    ends = threading.Timer(
        1.0, server.steps.__setitem__, (0, {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"})
    )
    ends.start()
    assert wait(api(server), NAMESPACE, WORK.name, lambda _: None, pause=0.1) == "STOPPED"
    server.forgotten = 0
    server.steps[:] = [{"jobDeploymentStatus": "Running"}]
    ends = threading.Timer(
        1.5, server.steps.__setitem__, (0, {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"})
    )
    ends.start()
    assert wait(api(server), NAMESPACE, WORK.name, lambda _: None, pause=0) == "FAILED"


def test_one_that_is_deleted_meanwhile_is_said_to_be_gone(server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "Running"}]
    create(api(server), rayjob(WORK))
    threading.Timer(0.5, server.delete, [("rayjobs", NAMESPACE, WORK.name)]).start()
    with pytest.raises(ClusterError, match="not found"):
        wait(api(server), NAMESPACE, WORK.name, lambda _: None, pause=0)


def test_the_rendered_role_is_enough_and_no_more(server: State) -> None:
    create(api(server), rayjob(WORK))
    with pytest.raises(client.ApiException) as refused:
        api(server).patch_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayjobs", WORK.name, [])
    assert refused.value.status == 403
    with pytest.raises(client.ApiException) as refused:
        api(server).list_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayclusters")
    assert refused.value.status == 403
    pods = client.CoreV1Api(api(server).api_client)
    with pytest.raises(client.ApiException) as refused:
        pods.list_namespaced_pod(NAMESPACE)
    assert refused.value.status == 403
    assert api(server).list_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayjobs")["items"]
    api(server).delete_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayjobs", WORK.name)
    assert not server.objects


def test_without_the_binding_nothing_is_allowed() -> None:
    things = [thing for thing in schemas.overlay("dev") if thing["kind"] != "RoleBinding"]
    with api_server.serving(things) as server, pytest.raises(ClusterError, match=r"is forbidden.*ask for the role"):
        create(api(server), rayjob(WORK))


def test_a_rule_of_the_definition_is_kept_by_the_server(server: State) -> None:
    wrong = rayjob(WORK)
    wrong["spec"]["managedBy"] = "somebody"
    with pytest.raises(UserError, match="managedBy field value must be"):
        create(api(server), wrong)


def test_one_that_never_ran_says_why(server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}]
    create(api(server), rayjob(WORK))
    assert wait(api(server), NAMESPACE, WORK.name, lambda _: None, pause=0) == "PreRunningDeadlineExceeded"


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


def _ended(server: State, status: str, ended: datetime) -> None:
    server.steps[:] = [
        {"jobDeploymentStatus": status, "jobStatus": "SUCCEEDED", "endTime": f"{ended:%Y-%m-%dT%H:%M:%SZ}"}
    ]


def test_a_full_quota_says_what_to_do_and_old_rayjobs_make_room(server: State) -> None:
    quota = next(q for q in server.rules.quotas(NAMESPACE) if "count/rayjobs.ray.io" in q["spec"]["hard"])
    most = int(quota["spec"]["hard"]["count/rayjobs.ray.io"])
    works = [dataclasses.replace(WORK, name=f"job-{n}", model="tiny" if n else "another") for n in range(most + 1)]
    for work in works[:most]:
        create(api(server), rayjob(work))
    with pytest.raises(ClusterError, match=r"exceeded quota: training.*delete what has ended"):
        create(api(server), rayjob(works[most]))
    now = datetime.now(UTC)
    _ended(server, "Complete", now - timedelta(days=6))
    assert kube.status(api(server), NAMESPACE, "job-1") == "SUCCEEDED"  # they are told once somebody looks
    assert kube.clear(api(server), NAMESPACE, "tiny", now) == []
    assert kube.clear(api(server), NAMESPACE, "tiny", now + timedelta(days=2)) == ["job-1"]
    create(api(server), rayjob(works[most]))


@pytest.mark.parametrize(
    ("operator", "means"),
    [
        ({}, "PENDING"),
        ({"jobDeploymentStatus": "Initializing"}, "PENDING"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "RUNNING"),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, "RUNNING"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "SUCCEEDED"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "STOPPED"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, "FAILED"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}, "FAILED"),
        ({"jobDeploymentStatus": "ValidationFailed"}, "FAILED"),
    ],
)
def test_what_the_operator_says_in_ray_s_words(server: State, operator: dict[str, str], means: str) -> None:
    server.steps[:] = [operator]
    assert kube.status(api(server), NAMESPACE, WORK.name) is None
    create(api(server), rayjob(WORK))
    assert kube.status(api(server), NAMESPACE, WORK.name) == means


def test_what_the_operator_will_not_take_has_ended(server: State) -> None:
    server.steps[:] = [{"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"}]
    create(api(server), rayjob(WORK))
    assert wait(api(server), NAMESPACE, WORK.name, lambda _: None, pause=0) == "ValidationFailed"


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
