"""One real cluster with a token, started and used as a user does, in a home and a storage root of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from cluster.errors import NotFoundError
from cluster.nodes import local
from cluster.session import NODE_ENVIRONMENT, ports_of_its_own
from cluster.settings import Settings
from tests.planted import files, holders

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

# Planted where secrets belong: in the environment and in a file that git ignores.
SECRET = "planted-" + "3f9a1c77d0"


@dataclass(frozen=True)
class User:
    """Types commands in a project folder."""

    folder: Path
    environment: dict[str, str]

    def types(self, *words: str, expect: int = 0, **environment: str) -> str:
        done = self.tries(*words, **environment)
        assert done.returncode == expect, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout

    def tries(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.folder / "project",
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rehone", *words]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "home").mkdir()
    (folder / "project").mkdir()
    (folder / "project" / "spec.yaml").write_text(yaml.safe_dump({"name": "p"}))
    (folder / "project" / ".env").write_text(f"KEY={SECRET}\n")
    (folder / "project" / ".gitignore").write_text(".env\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "REHONE_"))}
    environment |= {
        "HOME": str(folder / "home"),
        "REHONE_STORAGE": str(folder / "store"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "MLFLOW_TRACKING_URI": f"postgresql://me:{SECRET}@nowhere/db",
    }
    made = User(folder, environment)
    made.types("cluster", "up", "--cpus", "2")
    yield made
    made.types("cluster", "down")


@pytest.fixture(scope="module")
def found(user: User) -> dict[str, Any]:
    """What `up` says of the cluster that runs already."""
    said: dict[str, Any] = json.loads(user.types("cluster", "up", "--json"))
    return said


def script(user: User, text: str, name: str = "p") -> str:
    """Submit a shell command through the API of the user's own process and home; the job's id."""
    code = (
        "import sys; from cluster.submission.submit import Jobs; "
        "print(Jobs(sys.argv[1]).submit_command(sys.argv[2], sys.argv[3], {}, {'model': 'p'}))"
    )
    address = json.loads(user.types("cluster", "status", "--json"))["address"]
    done = subprocess.run(
        [sys.executable, "-c", code, address, text, name],
        env=user.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_it_asks_for_a_token_which_up_has_made(user: User, found: dict[str, Any]) -> None:
    token = (user.folder / "home" / ".ray" / "auth_token").read_text()
    jobs = f"{found['address']}/api/jobs/"
    assert httpx.get(jobs).status_code == 401
    assert httpx.get(jobs, headers={"Authorization": "Bearer wrong"}).status_code == 403
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    (user.folder / "empty").mkdir(exist_ok=True)
    other = user.tries("jobs", "list", "--address", found["address"], HOME=str(user.folder / "empty"))
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "no token or another one than the cluster's" in other.stderr


def test_it_does_not_claim_tls_that_it_was_not_started_with(user: User, found: dict[str, Any]) -> None:
    assert found["tls"] == ""
    done = user.tries("cluster", "up", "--tls")
    assert (done.returncode, done.stderr.count("\n"), "runs without TLS" in done.stderr) == (2, 1, True)


def test_its_nodes_notice_a_cut_as_in_the_manifests_and_have_ports_of_their_own(
    user: User, found: dict[str, Any]
) -> None:
    (head,) = [process for process in local._processes(local.Local(**found)) if "gcs_server" in process.name()]
    assert NODE_ENVIRONMENT.items() <= head.environ().items()
    assert ports_of_its_own().keys() <= head.environ().keys()


def test_a_job_without_the_token_reaches_no_core_service(user: User, found: dict[str, Any]) -> None:
    code = f"import ray; ray.init({found['gcs']!r}, log_to_driver=False)"
    for home, works in (("home", True), ("empty", False)):
        (user.folder / home).mkdir(exist_ok=True)
        environment = user.environment | {"HOME": str(user.folder / home)}
        environment["RAY_AUTH_MODE"] = "token" if works else "disabled"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is works, done.stderr


def test_a_verb_answers_as_it_did_there(user: User, found: dict[str, Any]) -> None:
    done = user.tries("jobs", "wait", script(user, "echo out; exit 3", "three"))
    assert done.returncode == 3
    assert "job three ended FAILED: exit code 3" in done.stderr
    assert "out" in user.types("jobs", "logs", "-f", "three", expect=3).splitlines()
    listed = {job["submission_id"]: job for job in json.loads(user.types("jobs", "list", "--json"))}
    assert listed["three"]["driver_exit_code"] == 3


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background makes them deaf to Ctrl-C, and what they start with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_without_a_terminal_leaves_the_job_and_says_how_to_stop_it(user: User, found: dict[str, Any]) -> None:
    name = script(user, "echo started; sleep 600", "left")
    following = subprocess.Popen(
        user.command("jobs", "logs", "-f", name),
        env=user.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    for line in following.stdout:
        if line == "started\n":
            break
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=60)
    assert following.returncode == 130
    assert f"`rehone jobs stop {name}` ends it" in said
    assert "RUNNING" in user.types("jobs", "list")
    assert "STOPPED" in user.types("jobs", "stop", name)
    user.types("jobs", "wait", name, expect=1)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_on_a_terminal_asks_and_can_stop_the_job(user: User, found: dict[str, Any]) -> None:
    name = script(user, "echo started; sleep 600", "asked")
    ours, theirs = pty.openpty()
    command = user.command("jobs", "logs", "-f", name)
    following = subprocess.Popen(command, env=user.environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = read_until(ours, "\nstarted")
    following.send_signal(signal.SIGINT)
    said += read_until(ours, f"job {name} is running: detach, stop it, or follow on?")
    os.write(ours, b"stop\n")
    said += read_until(ours, "ended STOPPED")
    os.close(ours)
    assert following.wait() == 1
    assert said.count("\nstarted") == 1  # the log goes on where it was


def read_until(terminal: int, text: str) -> str:
    """What a terminal shows until it has shown this."""
    said = ""
    while text not in said:
        assert select.select([terminal], [], [], 120)[0], said
        said += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(terminal, 1024).decode(errors="replace")).replace(
            "\r", ""
        )
    return said


def test_the_doctor_finds_it_well_and_a_spec_that_wants_more_not(user: User, found: dict[str, Any]) -> None:
    done = user.tries("cluster", "doctor", "--json", MLFLOW_TRACKING_URI="")
    findings = json.loads(done.stdout)
    # How full the disks of this machine are is no fault.
    assert [one for one in findings if one["check"] != "disks"] == []
    assert done.returncode == bool(findings)
    closed = user.types("cluster", "doctor", "--address", "http://127.0.0.1:9", "--json", expect=1)
    assert [finding["check"] for finding in json.loads(closed)] == ["port"]
    refused = user.types("cluster", "doctor", "--json", HOME=str(user.folder), expect=1)
    assert [finding["check"] for finding in json.loads(refused)] == ["token"]


def test_a_planted_secret_is_nowhere_but_where_it_was_planted(user: User, found: dict[str, Any]) -> None:
    job = "Cluster().submit('check', 'spec.yaml', metadata={'model': 'p'})"
    done = subprocess.run(
        [sys.executable, "-c", f"from cluster.sdk import Cluster; print({job}.follow().exit_code)"],
        cwd=user.folder / "project",
        env=user.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "'data' is missing" in done.stdout  # the spec was there and read
    assert done.stdout.endswith("\n2\n")
    assert "MLFLOW_TRACKING_URI holds a password and is not sent" in done.stderr
    token = (user.folder / "home" / ".ray" / "auth_token").read_text()
    api = httpx.get(f"{found['address']}/api/jobs/", headers={"Authorization": f"Bearer {token}"}).text
    assert '"model": "p"' in api or '"model":"p"' in api
    searched = [("the job API", api.encode()), *files(user.folder, Path(found["folder"]))]
    assert any("job-driver" in name for name, _ in searched)
    assert holders(SECRET, searched) == {str(user.folder / "project" / ".env")}
    assert holders(token, searched) == {str(user.folder / "home" / ".ray" / "auth_token")}


def test_down_ends_its_own_processes_and_no_others(tmp_path: Path, user: User, found: dict[str, Any]) -> None:
    other = user.environment | {"REHONE_STORAGE": str(tmp_path / "other")}
    second = json.loads(user.types("cluster", "up", "--no-token", "--json", REHONE_STORAGE=other["REHONE_STORAGE"]))
    assert second["address"] != found["address"]
    assert httpx.get(f"{second['address']}/api/jobs/").status_code == 200
    ours = local.Local(**second)
    pids = {process.pid for process in local._processes(ours)}
    assert len(pids) > 4
    user.types("cluster", "down", REHONE_STORAGE=other["REHONE_STORAGE"])
    assert not [one for one in psutil.process_iter(["status"]) if one.pid in pids and one.info["status"] != "zombie"]
    assert not Path(ours.folder).exists()
    assert user.types("cluster", "status").startswith(found["address"])
    again = user.tries("cluster", "down", REHONE_STORAGE=other["REHONE_STORAGE"])
    assert (again.returncode, "no cluster of this storage root runs here" in again.stderr) == (2, True)


def test_a_cluster_that_died_is_not_taken_for_running(tmp_path: Path) -> None:
    place = Settings(storage=str(tmp_path))
    gone = local.Local(999_999, "http://127.0.0.1:1", "127.0.0.1:2", str(tmp_path / "gone"), token=True)
    state = local._state(place)
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps(vars(gone)))
    assert local.running(place) is None
    with pytest.raises(NotFoundError, match="rehone cluster up"):
        local.find(place)
    assert local.down(place) == gone
    assert not state.exists()
