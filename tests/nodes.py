"""Ray nodes with addresses of their own on one machine: each in a network, mount, host-name and process namespace.

A bridge in a namespace of its own joins them, so nothing of the machine's own network is touched. What a node does not
have to itself is the file system, which is then the storage that they share, and the CPUs.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SUBNET = "10.213.77"
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NET = 0x40000000
ROOT = Path(__file__).parents[1]
_RAY = str(Path(sys.executable).with_name("ray"))
# Each node sees a /tmp/ray and a /dev/shm that are empty and its own, and knows only its own name: a look-up in a name
# server that is not there would take 10 s each. `exec` so that a signal reaches what it runs.
_ALONE = """
set -e
name=$1 address=$2 hosts=$3 account=$4 sealed=$5; shift 5
hostname "$name"
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs tmpfs /dev/shm
printf '127.0.0.1 localhost\\n%s %s\\n%s\\n' "$address" "$name" "$hosts" > /tmp/ray/hosts
printf 'nameserver 127.0.0.1\\n' > /tmp/ray/resolv.conf
mount --bind /tmp/ray/hosts /etc/hosts
mount --bind /tmp/ray/resolv.conf /etc/resolv.conf
if [ -n "$account" ]; then
    mount -t tmpfs tmpfs /run
    mkdir -p /run/secrets/kubernetes.io/serviceaccount
    cp "$account"/* /run/secrets/kubernetes.io/serviceaccount
fi
mkdir /tmp/ray/home
[ -z "$sealed" ] || mount -o remount,bind,ro /
exec "$@"
"""


def missing() -> str | None:
    """Why nodes cannot be had here, or None."""
    if os.geteuid() != 0:
        return "nodes of their own need root"
    absent = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if absent:
        return f"nodes of their own need {', '.join(absent)}"
    name = f"rehone-{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no network namespace can be made: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@dataclass
class Node:
    """A network namespace on the bridge and, once something was started in it, the processes of one machine."""

    space: str
    bridge: str
    port: str
    address: str
    environment: Mapping[str, str]
    log: Path
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of other nodes, and their addresses."""
    account: Path | None = None
    """A folder that it finds where Kubernetes mounts a service account."""
    sealed: bool = False
    """Whether its file system can only be read, but for /tmp/ray and /dev/shm."""
    _outer: subprocess.Popen[bytes] | None = field(default=None)
    _told: int = 0

    def start(self, command: Sequence[str]) -> None:
        """Run `command` as the node's first process; when it ends, everything on the node does."""
        assert self._outer is None
        self._told = self.log.stat().st_size if self.log.exists() else 0
        Path("/tmp/ray").mkdir(exist_ok=True)
        apart = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        hosts = "\n".join(f"{address} {name}" for name, address in self.names.items())
        mounts = [str(self.account or ""), "sealed" if self.sealed else ""]
        own = ["sh", "-c", _ALONE, "sh", self.space, self.address, hosts, *mounts]
        with self.log.open("ab") as log:
            self._outer = subprocess.Popen(
                ["ip", "netns", "exec", self.space, *apart, *own, *command],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        _until(lambda: self._inside() is not None, 30, f"{self.space} has its own process")

    def head(self, *options: str, cpus: int = 0) -> None:
        self._ray("--head", "--port=6379", "--dashboard-host=0.0.0.0", *options, cpus=cpus)
        self.ready()

    def worker(self, head: Node, *options: str, cpus: int = 2) -> None:
        self._ray(f"--address={head.address}:6379", *options, cpus=cpus)

    def _ray(self, *options: str, cpus: int) -> None:
        size = [f"--num-cpus={cpus}", "--object-store-memory=100000000"]
        own = [f"--node-ip-address={self.address}", "--disable-usage-stats", "--block"]
        self.start([_RAY, "start", *size, *own, *options])

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """`command` as a program of this node, whose output is read from `stdout`."""
        inside = ["nsenter", "-t", str(self._inside()), "-m", "-u", "-n", "-p"]
        return subprocess.Popen(
            [*inside, f"--wdns={ROOT}", *command],
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _inside(self) -> int | None:
        """The node's first process, as the machine counts, once it is what was to run there."""
        assert self._outer is not None and self._outer.poll() is None, self.log.read_text()[-2000:]
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        running = children and Path(f"/proc/{children[0]}/comm").read_text().strip() not in {"sh", "unshare"}
        return int(children[0]) if running else None

    def ready(self, seconds: float = 120) -> None:
        """Wait until `ray start` says that it has started what it was last asked for."""
        _until(lambda: "Ray runtime started" in self._said(), seconds, f"{self.space} has started Ray")

    def _said(self) -> str:
        return self.log.read_text()[self._told :]

    def cut(self) -> None:
        """Pull the cable: packets to and from the node vanish, and nobody is told."""
        _ip("-n", self.bridge, "link", "set", self.port, "down")

    def plug(self) -> None:
        _ip("-n", self.bridge, "link", "set", self.port, "up")

    def kill(self) -> None:
        """Power off. The namespace stays: a node can be started there again."""
        if self._outer is not None:
            self._outer.send_signal(signal.SIGKILL)
            self._outer.wait()
            self._outer = None


@dataclass(frozen=True)
class Seen:
    """What the head knew at `at` (unix s): addresses of the nodes it takes for alive, and of those with no CPU free."""

    at: float
    alive: frozenset[str]
    busy: frozenset[str]


def end(program: subprocess.Popen[str]) -> None:
    """End what `run` started: nsenter and, in its session, the program itself."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


class Observer:
    """Asks the head five times a second, from a program on it, what it knows of its nodes."""

    def __init__(self, head: Node) -> None:
        self.seen: list[Seen] = []
        self._program = head.run([sys.executable, "-m", "tests.nodes", "observe", f"{head.address}:6379"])
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            if line.startswith("{"):
                made = json.loads(line)
                self.seen.append(Seen(made["at"], frozenset(made["alive"]), frozenset(made["busy"])))

    def until(self, holds: Callable[[Seen], bool], seconds: float = 120) -> Seen:
        """The first sight from now on for which `holds`. Raises TimeoutError."""
        start, deadline = len(self.seen), time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next(filter(holds, self.seen[start:]), None)
            if found:
                return found
            time.sleep(0.05)
        raise TimeoutError(f"not in {seconds:g} s; last seen {self.seen[-1:]}, {self._program.poll()=}")

    def stop(self) -> None:
        end(self._program)
        self._thread.join()
        assert self._program.stdout is not None
        self._program.stdout.close()


def observe(address: str) -> None:
    """Print a line of JSON about the cluster five times a second. What an Observer runs."""
    import ray
    from ray._private.state import available_resources_per_node

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    while True:
        free = {node: have.get("CPU", 0) for node, have in available_resources_per_node().items()}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        sized = [node for node in nodes if node["Resources"].get("CPU", 0) > 0]
        busy = [node["NodeManagerAddress"] for node in sized if free.get(node["NodeID"], 0) < 1]
        alive = [node["NodeManagerAddress"] for node in nodes]
        print(json.dumps({"at": time.time(), "alive": alive, "busy": busy}), flush=True)
        time.sleep(0.2)


@dataclass
class Network:
    """Makes nodes; `environment` is that of their processes."""

    bridge: str
    environment: Mapping[str, str]
    logs: Path
    nodes: list[Node] = field(default_factory=list)

    def node(self, stack: ExitStack) -> Node:
        number = len(self.nodes) + 2
        space, port, address = f"{self.bridge}-{number}", f"port{number}", f"{SUBNET}.{number}"
        _space(space, stack)
        _ip("-n", self.bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", self.bridge, "link", "set", port, "master", "bridge", "up")
        _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "route", "add", "default", "via", f"{SUBNET}.1")  # by it Ray finds its own address
        made = Node(space, self.bridge, port, address, self.environment, self.logs / f"{space}.log")
        stack.callback(made.kill)
        self.nodes.append(made)
        return made


@contextmanager
def network(count: int, logs: Path, environment: Mapping[str, str]) -> Iterator[list[Node]]:
    """`count` nodes on one bridge, with nothing running on them yet; everything is gone afterwards."""
    with ExitStack() as stack:
        bridge = f"rehone-{os.getpid()}"
        _space(bridge, stack)
        _ip("-n", bridge, "link", "add", "bridge", "type", "bridge")
        _ip("-n", bridge, "address", "add", f"{SUBNET}.1/24", "dev", "bridge")
        _ip("-n", bridge, "link", "set", "bridge", "up")
        # gRPC's own resolver knows no /etc/hosts, and there is no name server here.
        made = Network(bridge, {**environment, "GRPC_DNS_RESOLVER": "native"}, logs)
        yield [made.node(stack) for _ in range(count)]


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {seconds:g} s: {what}")
        time.sleep(0.05)


def listener(space: str, address: str, port: int) -> socket.socket:
    """A socket of this process that listens in a namespace: a socket stays where the thread was that made it."""
    made: list[socket.socket] = []

    def listen() -> None:
        with Path("/run/netns", space).open() as there:
            if _LIBC.setns(there.fileno(), _NEW_NET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {space}")
        made.append(socket.create_server((address, port)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return made[0]


def _space(name: str, stack: ExitStack) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def ask(url: str) -> None:
    """Ask a model five times a second and print when, and what came of it: an HTTP status, or the error's name."""
    import httpx

    while True:
        try:
            said = str(httpx.post(url, json={"inputs": ["good day"]}, timeout=10).status_code)
        except httpx.TransportError as error:
            said = type(error).__name__
        print(time.time(), said, flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    {"observe": observe, "ask": ask}[sys.argv[1]](sys.argv[2])
