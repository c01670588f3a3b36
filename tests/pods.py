"""Pods of a rendered RayCluster as nodes of `tests.nodes`, kept by something that does as the KubeRay operator does.

Each runs the very command and environment that the operator makes from the manifest. In place of the kubelet: memory is not
bounded, and HOME and TMPDIR are folders of the node's own. In place of the image: this checkout.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import nodes
from tests.cluster.api_server import Key, Object, RefusedError, State
from tests.k8s import kuberay
from tests.nodes import Node

_HERE = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "HOME": "/tmp/ray/home",
    "TMPDIR": "/tmp/ray/home",
    "PYTHONPATH": str(nodes.ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "GRPC_DNS_RESOLVER": "native",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "100000000",  # a pod would see less memory than this machine has
}


def prepared(node: Node, pod: Object, things: Sequence[Object]) -> list[str]:
    """The node made ready for a pod's first container; what is to be run there."""
    container = pod["spec"]["containers"][0]
    node.environment = {**_HERE, **kuberay.environment(pod, container, things)}
    node.sealed = container["securityContext"]["readOnlyRootFilesystem"]
    return ["bash", "-c", *container["args"]]


def beside(node: Node, pod: Object, name: str, things: Sequence[Object], more: dict[str, str]) -> subprocess.Popen[str]:
    """Another container of the pod that the node runs, with its own environment and `more`."""
    container = next(one for one in pod["spec"]["containers"] if one["name"] == name)
    known = kuberay.environment(pod, container, things)
    (command,) = container["args"]
    expanded = re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], command)  # as the kubelet does
    return node.run(["env", "-i", *(f"{k}={v}" for k, v in {**_HERE, **known, **more}.items()), "bash", "-c", expanded])


@dataclass
class Operator:
    """Starts and stops workers as the RayCluster in the API server asks for. `machines` are those that it may use."""

    state: State
    cluster: Object
    things: Sequence[Object]
    head: Node
    machines: list[Node]
    running: dict[str, Node] = field(default_factory=dict)
    seen: list[tuple[float, str, int]] = field(default_factory=list)
    """(Unix s, group, workers) of every change."""
    _made: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    @property
    def key(self) -> Key:
        meta = self.cluster["metadata"]
        return ("rayclusters", meta["namespace"], meta["name"])

    def begin(self) -> None:
        """The head, then the workers that the cluster begins with."""
        self.state.put(self.key, self.cluster, "ADDED")
        pod = kuberay.head(self.cluster)
        self.head.start(prepared(self.head, pod, self.things))
        self.head.ready()
        self._show(pod, self.head)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ends.is_set():
            for group in copy.deepcopy(self.state.kept[self.key]["spec"]["workerGroupSpecs"]):
                self._reconcile(group)
            with self.state.changed:
                self.state.changed.wait(timeout=0.5)

    def _reconcile(self, group: Object) -> None:
        name = group["groupName"]
        mine = [pod for pod in self.running if pod.startswith(f"{self.cluster['metadata']['name']}-{name}-worker-")]
        for pod in set(group.get("scaleStrategy", {}).get("workersToDelete", [])) & set(mine):
            self._delete(pod)
            mine.remove(pod)
            self.seen.append((time.time(), name, len(mine)))
        while len(mine) < max(group["replicas"], group["minReplicas"]):
            mine.append(self._create(name))
            self.seen.append((time.time(), name, len(mine)))

    def _create(self, group: str) -> str:
        node, pod = self.machines.pop(0), kuberay.worker(self.cluster, group, self._made)
        self._made += 1
        node.names = {kuberay.service(self.cluster): self.head.address}
        node.start(prepared(node, pod, self.things))
        name: str = pod["metadata"]["name"]
        self.running[name] = node
        self._show(pod, node)
        return name

    def _delete(self, pod: str) -> None:
        node = self.running.pop(pod)
        node.kill()
        self.machines.append(node)
        with suppress(RefusedError):
            self.state.delete(("pods", self.key[1], pod))

    def _show(self, pod: Object, node: Node) -> None:
        state = {"name": pod["spec"]["containers"][0]["name"], "state": {"running": {}}}
        status = {"phase": "Running", "podIP": node.address, "containerStatuses": [state]}
        self.state.put(("pods", self.key[1], pod["metadata"]["name"]), pod | {"status": status}, "ADDED")
