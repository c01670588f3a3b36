"""Every manifest scanned by checkov, with Ray's kinds expanded to the pods that the operator makes of them.

checkov wants other versions of what rehone uses, so it has an environment of its own, made when it is first asked for.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from cluster.submission.rayjob import rayjob
from tests.cluster.test_rayjob import GPU, GROWING, WORK

from . import kuberay
from .schemas import Object, clusters, overlay

pytestmark = pytest.mark.long

CHECKOV = "3.3.30"

EVERYWHERE = {
    "CKV_K8S_11": "no limit on CPUs: one would stop a pod in the middle of its work while the node's CPUs are idle",
    "CKV_K8S_15": "tags are versions, so what a node has under one is what the registry has",
    "CKV_K8S_35": "Ray, boto3 and fsspec read keys from the environment, and Ray's operator puts its token there",
    "CKV_K8S_43": "which registry, and so which digest, is for whoever builds the image: components/images names it",
}
SCALED = ("Pod.rehone-training.rehone-training-head", "Pod.rehone-training.growing-head")
AT = {
    "CKV_K8S_8": dict.fromkeys(SCALED, "the autoscaler's container, whose probes cannot be set"),
    "CKV_K8S_9": dict.fromkeys(SCALED, "as above"),
    "CKV_K8S_38": dict.fromkeys(SCALED, "the autoscaler asks the API server for pods"),
    "CKV_K8S_40": {
        "StatefulSet.rehone-control.postgres": "999 is the image's own user",
        "StatefulSet.rehone-serving.rehone-gcs": "999 is the image's own user",
    },
}


@pytest.fixture(scope="module")
def checkov() -> Path:
    home = Path(sys.prefix) / "checkov"
    program = home / "bin" / "checkov"
    # Tests of this file run in several processes at once.
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            install = [home / "bin" / "pip", "install", "--quiet", f"checkov=={CHECKOV}"]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                shutil.rmtree(home)
                pytest.skip(f"checkov could not be installed, nothing was scanned: {done.stderr.strip()[-200:]}")
    return program


def _renamed(thing: Object) -> Object:
    return thing | {"metadata": thing["metadata"] | {"name": "growing"}}


def _write(things: Iterable[Object], folder: Path) -> None:
    for number, thing in enumerate(things):
        for part, one in enumerate(kuberay.expand(thing) or [thing]):
            (folder / f"{number}-{part}.yaml").write_text(yaml.safe_dump(one))


def _scan(checkov: Path, folder: Path) -> tuple[set[tuple[str, str]], int]:
    """(check, object) of each finding, and how many checks found nothing."""
    command = [checkov, "--skip-download", "--framework", "kubernetes", "-d", folder, "-o", "json", "--compact"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["summary"]["parsing_errors"] == 0
    return {(one["check_id"], one["resource"]) for one in found["results"]["failed_checks"]}, found["summary"]["passed"]


def test_what_it_finds_is_what_there_is_a_reason_for(checkov: Path, tmp_path: Path) -> None:
    things: list[Object] = [*overlay("dev"), *overlay("gpu"), rayjob(WORK), rayjob(GPU), _renamed(rayjob(GROWING))]
    assert sum(clusters(thing) is not None for thing in things) == 7
    _write(things, tmp_path)
    findings, passed = _scan(checkov, tmp_path)
    assert passed > 1000
    assert {one for one in findings if one[0] not in EVERYWHERE} == {(check, one) for check in AT for one in AT[check]}
    assert {check for check, _ in findings} == {*EVERYWHERE, *AT}, "a reason for what is no longer found"


def test_it_looks_into_the_pods_of_a_ray_cluster(checkov: Path, tmp_path: Path) -> None:
    cluster = rayjob(WORK)
    (group,) = cluster["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    container = group["template"]["spec"]["containers"][0]
    container["securityContext"] = {"privileged": True}
    _write([cluster], tmp_path)
    findings, _ = _scan(checkov, tmp_path)
    wrong = {check for check, one in findings if one.endswith("worker-0")} - set(EVERYWHERE)
    assert {"CKV_K8S_16", "CKV_K8S_20", "CKV_K8S_22"} <= wrong
