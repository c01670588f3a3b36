from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import JobFailedError
from cluster.sdk import Cluster
from cluster.settings import Settings
from cluster.submission import remote
from cluster.submission.remote import Request
from cluster.submission.submit import JOB, Resources
from jobs import specfile
from jobs.spec import Spec

VALUES = st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text(), max_size=3), min_size=1)


@given(VALUES, st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"])), max_size=5))
def test_a_result_is_found_after_any_log(value: Any, log: list[str]) -> None:
    printed = json.dumps(value, indent=2)
    assert remote.result_of("\n".join([*log, printed, "rehone: the gate refused"])) == value


def test_a_log_without_a_result_has_none() -> None:
    assert remote.result_of("12:00:00 training\n{\nbroken\n") is None


def test_a_verb_that_is_a_job_already_is_not_sent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Settings(address="http://head:8265")
    assert remote.address(place) == "http://head:8265"
    monkeypatch.setenv(JOB, "rehone-train-1")
    assert remote.address(place) is None


@pytest.fixture
def project(spec: Spec, tmp_path: Path) -> Path:
    """A project whose data git ignores."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "data.csv").rename(folder / "data" / "train.csv")
    (folder / ".gitignore").write_text("data/\n")
    tree = spec.model_dump(mode="json")
    tree["data"]["source"] = "data/train.csv"
    (folder / "spec.yaml").write_text(specfile.dump(Spec.model_validate(tree)))
    return folder


@pytest.mark.ray
def test_a_verb_runs_there_with_what_its_spec_names(
    ray_session: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Request("check", project / "spec.yaml", ("training.epochs=3",), metadata={"model": "tiny"})
    result = remote.run(asked, ray_session, Settings(storage=str(tmp_path / "store")), json=True)
    assert (result["name"], sum(result["rows"].values())) == ("tiny", 160)
    said = capsys.readouterr()
    assert said.out == ""  # it is for the result alone
    assert "sending 3 files" in said.err
    job = Cluster(ray_session).jobs()[-1]
    assert job.metadata.keys() == {"kind", "user", "model", "package"}
    assert job.entrypoint.endswith("-m rehone check spec.yaml --set training.epochs=3 --json")
    made = remote.run(
        Request("prepare", project / "spec.yaml"), ray_session, Settings(storage=str(tmp_path / "store")), json=True
    )
    assert (made["name"], sum(sum(counts.values()) for counts in made["counts"].values())) == ("tiny", 160)


@pytest.mark.ray
@pytest.mark.parametrize(("override", "code"), [("training.epochs=none", 2), ("data.source=/gone.csv", 2)])
def test_the_users_mistake_there_is_one_here(
    ray_session: str, project: Path, override: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobFailedError, match=f"exit code {code}") as caught:
        remote.run(Request("check", project / "spec.yaml", (override,)), ray_session, Settings(storage=str(tmp_path)))
    assert caught.value.exit_code == code
    assert "rehone: " in capsys.readouterr().out


@pytest.mark.ray
def test_it_can_be_left_to_itself_and_found_again_from_python(ray_session: str, project: Path, tmp_path: Path) -> None:
    place = Settings(storage=str(tmp_path / "store"))
    left = remote.run(Request("check", project / "spec.yaml"), ray_session, place, detach=True)
    cluster = Cluster(ray_session, place)
    written: list[str] = []
    assert cluster.job(left["submission_id"]).follow(written.append).status == "SUCCEEDED"
    assert "is fine: 160 rows" in "".join(written)
    again = cluster.submit("check", project / "spec.yaml", overrides=["x=1"], resources=Resources(cpus=1))
    with pytest.raises(JobFailedError) as caught:
        again.wait()
    assert (caught.value.exit_code, "unknown key 'x'" in again.logs()) == (2, True)


TWO_NODES = """
import json, os, sys
from cluster.session import connect, prepare_environment
prepare_environment()
from ray.cluster_utils import Cluster
two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
two.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = two.address
from cluster.nodes import probe
from cluster.errors import UserError
from cluster.settings import Settings
said = {}
for shared in (None, True):
    try:
        with connect(Settings(storage=sys.argv[1], storage_shared=shared)):
            said["asked"] = probe.ask(sys.argv[1], "")
    except UserError as error:
        said["refused"] = str(error)
two.shutdown()
print(json.dumps(said))
"""


@pytest.mark.ray
def test_a_local_root_is_refused_on_two_real_nodes_and_taken_when_declared_shared(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert "a folder on one node, and the cluster has 2" in said["refused"]
    assert [node["answered"] for node in said["asked"]] == [True, True]
    assert all(abs(node["skew"]) <= node["skew_error"] + 0.5 for node in said["asked"])
    assert all(node["storage"] == "" for node in said["asked"])
