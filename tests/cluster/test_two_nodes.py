"""A real cluster of two nodes with TLS: who may join and ask, and what the doctor finds when the second is not well."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.nodes import certificates
from cluster.nodes.certificates import Certificates
from cluster.nodes.local import Local
from cluster.session import NODE_ENVIRONMENT, free_port
from tests.cluster.test_certificates import context

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
# What Python on the second node runs first: its clock is 7 s ahead.
AHEAD = "import time as _t\n_true = _t.time\n_t.time = lambda: _true() + 7\n"


@dataclass(frozen=True)
class Made:
    """A cluster of two nodes, and what its user types with."""

    local: Local
    environment: dict[str, str]
    folder: Path


def typed(environment: dict[str, str], *words: str, expect: int = 0) -> Any:
    command = [sys.executable, "-m", "rehone", *words, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "REHONE_"))}
    environment |= {"HOME": str(folder / "home"), "REHONE_STORAGE": str(folder / "store"), "PYTHONPATH": str(ROOT)}
    local = Local(**typed(environment, "cluster", "up", "--cpus", "1", "--tls"))
    try:
        node = second(local, environment, folder)
        try:
            yield Made(local, environment, folder)
        finally:
            node.terminate()
            node.wait()
    finally:
        typed(environment, "cluster", "down")


def second(local: Local, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Joins as `docs/operations.md` says. It has another rehone, and its clock is wrong."""
    import ray

    address = ray.util.get_node_ip_address()
    certificate = typed(environment, "cluster", "certificate", address, "--out", str(folder / "node"))
    other = folder / "other"
    (other / "rehone-9.9.dist-info").mkdir(parents=True)
    (other / "rehone-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rehone\nVersion: 9.9\n")
    (other / "sitecustomize.py").write_text(AHEAD)
    own = {"RAY_AUTH_MODE": "token", "PYTHONPATH": f"{other}:{ROOT}"}
    ports = [f"{name}={free_port()}" for name in ("--dashboard-agent-listen-port", "--metrics-export-port")]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with (folder / "node.log").open("wb") as log:
        return subprocess.Popen(
            [*start, f"--address={local.gcs}", "--num-cpus=1", "--object-store-memory=100000000", *ports],
            env=environment | certificate["environment"] | NODE_ENVIRONMENT | own,
            stdout=log,
            stderr=log,
        )


JOB = """
import ray, time
ray.init(log_to_driver=False)
until = time.monotonic() + 60
while len([n for n in ray.nodes() if n["Alive"]]) < 2 and time.monotonic() < until:
    time.sleep(0.2)
where = ray.remote(num_cpus=1)(lambda: time.sleep(1) or ray.get_runtime_context().get_node_id())
print("ran on", len(set(ray.get([where.options(scheduling_strategy="SPREAD").remote() for _ in range(4)]))))
"""

SUBMIT = """
import sys
from cluster.submission.submit import Jobs, THERE
jobs = Jobs(sys.argv[1])
jobs.submit_command(f"{THERE} {sys.argv[2]}", "spread", {}, {})
jobs.wait("spread")
print(jobs.logs("spread"))
"""


def test_a_job_runs_on_both_nodes_which_show_each_other_certificates(made: Made) -> None:
    (made.folder / "job.py").write_text(JOB)
    submitted = subprocess.run(
        [sys.executable, "-c", SUBMIT, made.local.address, str(made.folder / "job.py")],
        env=made.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ran on 2" in submitted.stdout, (submitted, (made.folder / "node.log").read_text()[-2000:])
    assert typed(made.environment, "cluster", "up", "--tls")["pid"] == made.local.pid


def test_the_head_answers_nobody_without_a_certificate_of_its_authority(made: Made, tmp_path: Path) -> None:
    tls, port = Path(made.local.tls), int(made.local.gcs.rpartition(":")[2])
    stranger = certificates.issue(["localhost"], tmp_path / "stranger", tmp_path / "other")
    strangers = {"no certificate": context(None, tls), "another's": context(stranger, tls), "no TLS": None}
    assert answers(port, context(Certificates(tls), tls))
    assert [who for who, client in strangers.items() if answers(port, client)] == []


def answers(port: int, client: ssl.SSLContext | None) -> bool:
    """Whether a gRPC server answers the first bytes of HTTP/2 with its settings. It hangs up on whom it refuses."""
    with ExitStack() as stack:
        line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        try:
            if client is not None:
                line = stack.enter_context(client.wrap_socket(line, server_hostname="127.0.0.1"))
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return line.recv(9)[3:4] == b"\x04"  # the type of a frame is its fourth byte, 4 is SETTINGS
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own that is 97% full."""
    if os.geteuid() != 0:
        pytest.skip("a full disk needs root to be mounted")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(int(0.97 * 2 * 2**20)))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_doctor_finds_what_is_wrong_with_it(made: Made, full: Path) -> None:
    scaling = {"workers": 2, "use_gpu": True}
    tree = {"name": "p", "base_model": "none", "data": {"source": "a.csv"}, "scaling": scaling}
    (made.folder / "spec.yaml").write_text(yaml.safe_dump(tree))
    environment = made.environment | {"REHONE_STORAGE": str(full / "store")}
    words = ["cluster", "doctor", str(made.folder / "spec.yaml"), "--address", made.local.address]
    found = typed(environment, *words, expect=1)
    # The disks of this machine may be nearly full too.
    mine = [one for one in found if one["check"] != "disks" or str(full) in one["what"]]
    said = sorted((one["check"], one["what"]) for one in mine)
    assert [check for check, _ in said] == ["clocks", "disks", "disks", "gpu", "storage", "versions"]
    whats = dict(said)
    assert "s ahead of the head's" in whats["clocks"]
    assert "97% full" in whats["disks"]
    assert whats["gpu"] == "the spec wants 2 GPUs, the cluster has 0"
    assert whats["storage"] == "a folder on one node, and the cluster has 2"
    assert whats["versions"].startswith("rehone 9.9, here ")
    assert all(one["mend"] for one in found)
