"""The training cluster of the manifests, with Ray's own KubeRay autoscaler: work comes, nodes come; it ends, they go.

Each pod's `ray start` and environment are what the operator makes of the rendered RayCluster; the API server judges the
autoscaler's patches by the definition and the Role that the operator gives it.
"""

from __future__ import annotations

import copy
import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.nodes import certificates
from tests import nodes, pods
from tests.cluster import api_server
from tests.k8s import kuberay, schemas
from tests.pods import Operator

_MISSING = nodes.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)),
]

PORT = 6443
IDLE_SECONDS = 5
_TOKEN = "the-autoscaler"

# What `rehone train` asks for first, then work for two nodes at once.
_WORK = """
import json, os, time
import ray
from cluster.errors import UserError
from cluster.session import require

ray.init(logging_level="ERROR", log_to_driver=False)
begun = time.time()
try:
    require([{"CPU": 2}] * 3)
    refused = None
except UserError as error:
    refused = str(error)
answered = time.time()
require([{"CPU": 2}] * 2)
accepted = time.time()

@ray.remote(num_cpus=2)
def where():
    time.sleep(1)
    return ray.util.get_node_ip_address(), bool(os.statvfs("/").f_flag & os.ST_RDONLY)

ran = ray.get([where.remote() for _ in range(2)])
print(json.dumps({
    "refused": refused, "refused_after": answered - begun, "accepted_after": accepted - answered,
    "ran": dict(ran), "ran_after": time.time() - accepted,
}))
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_work_makes_nodes_and_idleness_takes_them_away(tmp_path: Path, stack: ExitStack) -> None:
    things = schemas.overlay("dev")
    cluster = copy.deepcopy(next(thing for thing in things if thing["kind"] == "RayCluster"))
    cluster["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] = IDLE_SECONDS
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 2)

    head, *machines = stack.enter_context(nodes.network(3, tmp_path, {}))
    gateway = f"{nodes.SUBNET}.1"
    certificates.issue([gateway], tmp_path / "server", tmp_path / "authority")
    head.account = tmp_path / "account"
    head.account.mkdir()
    (head.account / "token").write_text(_TOKEN)
    (head.account / "ca.crt").write_bytes((tmp_path / "server/ca.crt").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server/node.crt", tmp_path / "server/node.key")
    roles = [*things, *kuberay.account(cluster)]
    at = nodes.listener(head.bridge, gateway, PORT)
    state = stack.enter_context(api_server.serving(roles, at, context))
    meta = cluster["metadata"]
    state.users[_TOKEN] = f"system:serviceaccount:{meta['namespace']}:{meta['name']}"

    operator = Operator(state, cluster, things, head, machines)
    operator.begin()
    stack.callback(operator.end)
    server = {"KUBERNETES_SERVICE_HOST": gateway, "KUBERNETES_SERVICE_PORT_HTTPS": str(PORT)}
    autoscaler = pods.beside(head, kuberay.head(cluster), "autoscaler", things, server)
    stack.enter_context(autoscaler)
    stack.callback(nodes.end, autoscaler)

    begun = time.time()
    work = head.run([sys.executable, "-c", _WORK])
    stack.enter_context(work)
    stack.callback(nodes.end, work)
    output, _ = work.communicate(timeout=150)
    assert work.returncode == 0, output[-3000:]
    told = json.loads(output.splitlines()[-1])
    ended = time.time()

    deadline = time.monotonic() + 60
    while operator.running and time.monotonic() < deadline:
        time.sleep(0.1)
    up = [at - begun for at, _, _ in operator.seen][:2]
    print(f"nodes asked for {up} s after the start, {told}; gone {time.time() - ended:.1f} s after the work")
    assert (
        told["refused"]
        == "scaling: 6 CPUs are wanted, the cluster has 0 (fewer workers or replicas, or a larger cluster)"
    )
    assert told["ran"] == {node.address: True for node in machines}, "each on a node of its own, that can write nowhere"
    assert not operator.running
    assert [count for _, _, count in operator.seen][:2] == [1, 2]
    assert {verb for _, verb, _ in state.asked} == {"get", "list", "patch"}
