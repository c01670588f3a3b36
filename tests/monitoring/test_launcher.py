"""Retrainings as RayJobs, with the official client against `tests.cluster.api_server` and its rendered Role."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ClusterError
from cluster.submission import rayjob
from cluster.submission.submit import JOB
from jobs import specfile
from jobs.on_kubernetes import Manner
from monitoring import launcher
from monitoring.journal import BEGUN, DONE, FAILED
from monitoring.watch import drain
from tests.cluster import api_server
from tests.cluster.api_server import State
from tests.cluster.test_kube import api
from tests.k8s import rules, schemas

from .fakes import log, publish, sample
from .test_watch import RETRAIN_ID, SPEC, Killed, World

MANNER = Manner("registry.example.com/rehone:0.1.0-cpu", queue="rehone")
HUB = SPEC.with_values({"base_model": "hub/anything"})


@pytest.fixture
def server() -> Iterator[State]:
    with api_server.serving(schemas.overlay("production")) as state:
        state.steps[:] = [{"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}]
        yield state


def kubernetes(server: State) -> launcher.Kubernetes:
    return launcher.Kubernetes(HUB, api(server), MANNER)


@dataclass
class AsJobApi:
    """A launcher by the names that `World` knows."""

    runs: launcher.Launcher

    def submit(self, submission_id: str) -> None:
        self.runs.launch(submission_id)

    def status(self, submission_id: str) -> str | None:
        return self.runs.status(submission_id)


@pytest.fixture
def world(storage: Any, tmp_path: Path, server: State) -> World:
    rng = np.random.default_rng(0)
    log(storage, sample(25, rng), labelled=20)
    jobs: Any = AsJobApi(kubernetes(server))
    return World(storage, publish(tmp_path / "model", sample(20, rng)), jobs=jobs)


def test_a_retraining_is_one_rayjob_that_runs_the_verb_under_the_id_of_the_journal(server: State) -> None:
    runs = kubernetes(server)
    assert runs.status(RETRAIN_ID) is None
    runs.launch(RETRAIN_ID)
    runs.launch(RETRAIN_ID)
    ((name, made),) = server.objects.items()
    assert name.startswith("rehone-moods-retrain-") and not rules.operator(made)
    assert made["spec"]["entrypoint"] == f"rehone retrain {rayjob.SPEC_FILE}"
    assert made["spec"]["jobId"] == RETRAIN_ID
    assert json.loads(made["spec"]["runtimeEnvYAML"])["env_vars"] == {JOB: RETRAIN_ID}
    assert made["spec"]["backoffLimit"] == 0  # what the gate refused is not made twice
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "rehone"
    assert runs.status(RETRAIN_ID) == "RUNNING"


def test_ids_and_models_of_any_length_have_names_of_their_own() -> None:
    names = {
        rayjob.name_of(model, "retrain", f"{model}-retrain-{n}")
        for model in ("a", "9", "a" * 40, "b-" * 19 + "b")
        for n in range(50)
    }
    assert len(names) == 200
    assert all(len(name) <= 47 and name[0].isalpha() and "--" not in name for name in names)


def test_killed_anywhere_the_watch_makes_exactly_one_rayjob(world: World, server: State) -> None:
    lives = 0
    while True:
        world.kill_at, world.acts, lives = lives + 1, 0, lives + 1
        try:
            drain(world.watch())
        except Killed:
            continue
        break
    assert lives > 10
    assert len(server.objects) == 1
    assert world.states("retrain") == [("1-2", BEGUN)]
    server.steps[:] = [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}]
    drain(world.watch())
    assert world.states("retrain") == [("1-2", BEGUN), ("1-2", DONE)]
    assert len(server.objects) == 1


def test_a_cluster_that_never_came_is_a_retraining_that_failed(world: World, server: State) -> None:
    drain(world.watch())
    server.steps[:] = [{"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}]
    drain(world.watch())
    assert world.states("retrain") == [("1-2", BEGUN), ("1-2", FAILED)]
    assert world.finished == [RETRAIN_ID]


def test_a_server_that_refuses_leaves_the_retraining_for_the_next_look(world: World, server: State) -> None:
    users = dict(server.users)
    server.users.clear()
    with pytest.raises(ClusterError, match="log in again"):
        drain(world.watch())
    assert world.states("retrain") == [("1-2", BEGUN)] and not server.objects
    server.users.update(users)
    drain(world.watch())
    assert len(server.objects) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kubernetes"], "rehone: --image: no image is named"),
        (["--kubernetes", "--address", "http://head:8265"], "goes with none of --address, --detach and --stop"),
        (["--kubernetes", "--image", MANNER.image], "no Kubernetes cluster is configured"),
    ],
)
def test_the_verb_says_a_mistake_in_one_line(words: list[str], says: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(HUB))
    done = subprocess.run(
        [sys.executable, "-m", "rehone", "watch", str(file), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KUBECONFIG": str(tmp_path / "none"), "REHONE_STORAGE": str(tmp_path / "root")},
    )
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
