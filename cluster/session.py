"""A connection to Ray: the cluster that is there, else a local one that lives as long as this process."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .nodes import access, scaling
from .settings import Settings
from .store import shared

PROJECT = Path(__file__).resolve().parent.parent

# Each one is set before Ray is imported: Ray reads most of them once.
_ENVIRONMENT = {
    # The default of 2 s lets every report of a training worker block for up to 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # Workers whose node has just died wait so long for it, then for what is there; 60 s by default.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    # A cloud gives two minutes' notice at best, some give 30 s; 5 s by default.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    # Fewer lines that a user did not ask for.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # HAProxy in front of replicas: with Serve's own proxy a small model answers 1.6 times slower (docs/decisions/0004).
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # A request whose replica dies goes to another one (docs/decisions/0013). HAProxy can send again only what it holds
    # whole: the second line, for which Ray has no variable. Ten times, since connections to the dead one come first.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response\n    option http-buffer-request",
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    # A proxy that died is started anew after three of these: by default 30 s in which nobody listens.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # The default of 5 s kills a proxy that a busy machine has not started by then, and Serve's start with it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # How long a replica that is to end still answers; its default of 30 s is for cloud load balancers.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
}

# What else a node of a cluster starts with (`rehone cluster up`, k8s/): a cut cable is noticed in 10 s rather than in
# 65, and what waits for the node goes on. Not where Ray is this process's own (`connect`): busy is not cut off.
NODE_ENVIRONMENT = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


def worker_environment(settings: Settings) -> dict[str, str]:
    """Environment of every worker, replica and job, so that nothing depends on the shell it came from.

    Ray shows it to everybody who may ask, so what holds a password stays out: processes inherit that from their node.
    """
    return {**_ENVIRONMENT, **access.sendable(settings.environment()), "PYTHONPATH": str(PROJECT)}


def remote_environment(settings: Settings) -> dict[str, str]:
    """What a job on a cluster elsewhere is sent: nothing of this machine's own but the storage root."""
    here = {"RAY_API_SERVER_ADDRESS", "REHONE_SPOOL"}
    return {name: value for name, value in {**_ENVIRONMENT, **settings.environment()}.items() if name not in here}


def prepare_environment() -> None:
    """Defaults that Ray reads at import; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("REHONE_PYTHON", sys.executable)
    # Ray 2.60 turns authentication on by itself in some of its processes once a token exists; say which it is.
    if access.MODE not in os.environ:
        os.environ[access.MODE] = "token" if access.kept_token() else "disabled"


def free_port() -> int:
    with socket.socket() as sock:
        # On every address: a port that another cluster has on one of them is not free.
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def ports_of_its_own() -> dict[str, str]:
    """Ports that Serve takes in a cluster and that would be the same in all clusters of a machine.

    HAProxy's own pages: a second cluster could not serve. The proxy that requests go to while no replica can take them:
    Linux lets the proxies of two clusters listen on one port and deals requests out to both, so each would answer for
    the other: as its own model, with 404 where it has none yet, with 500 when its replica dies. Replicas: the port of
    one that dies would go to another cluster's, and with it the requests that HAProxy still sends there.
    """
    first = 20_000 + os.getpid() % 100 * 100
    return {
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
    }


@contextmanager
def _inherited(defaults: Mapping[str, str]) -> Iterator[None]:
    """By what is started inside the block, as its environment; what is set already stays."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _any_agent_port() -> None:
    """Let Ray's agent take a free port: `ray.init` has no argument for it, and always asks for 52365.

    A second local cluster on a machine would start without an agent and answer every job with an error.
    """
    from ray._private.parameter import RayParams

    RayParams.__init__ = functools.partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)


def _folder_of_its_own() -> str:
    """Where a local cluster keeps its session. Ray's own folder says which cluster jobs are to join, one a machine."""
    from ray._common.utils import get_default_ray_temp_dir

    return str(Path(get_default_ray_temp_dir()) / f"local-{os.getpid()}")


def _tell_jobs(folder: str) -> None:
    """Jobs of the connected cluster join it. Without a word they join that of the last `ray start`, dead or alive."""
    import ray
    from ray._private.utils import write_ray_address

    write_ray_address(ray.get_runtime_context().gcs_address, folder)


def require(bundles: Sequence[Mapping[str, float]], where: str = "scaling") -> None:
    """Raises UserError when the connected cluster has no room for processes of these resources and cannot grow to it.

    Ray itself would wait for ever.
    """
    import ray

    wanted: Counter[str] = Counter()
    for bundle in bundles:
        wanted.update(bundle)
    has = ray.cluster_resources()
    short = [name for name, amount in wanted.items() if has.get(name, 0) < amount]
    if short and not scaling.could_grow(bundles):
        raise UserError(
            f"{wanted[short[0]]:g} {short[0]}s are wanted, the cluster has {has.get(short[0], 0):g}",
            where=where,
            mend="fewer workers or replicas, or a larger cluster",
        )


def _require_gpu(where: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "a GPU is wanted and this machine has none",
            where=where,
            mend="a cluster that has (RAY_ADDRESS; --address where a verb takes it), or a spec without",
        )


@contextmanager
def connect(
    settings: Settings, *, num_cpus: int | None = None, dashboard: bool = False, gpu: str = ""
) -> Iterator[str | None]:
    """Connected to Ray inside the block; yields the address of the job API, when there is one.

    Inside a Ray job or beside `ray start` it joins that cluster (`RAY_ADDRESS`). Otherwise it starts a local
    one with at least `num_cpus` logical CPUs (more than cores is fine for Ray) and ends it on leaving.
    Raises UserError when the storage root is not one that a joined cluster shares, or when `gpu`, which names the key
    of a spec, wants one and Ray would be started on a machine that has none.
    """
    prepare_environment()
    joined = os.environ.get("RAY_ADDRESS")
    if gpu and not joined:
        _require_gpu(gpu)
    import ray

    if ray.is_initialized():
        yield settings.address
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if joined:
        options["address"] = joined
    else:
        _any_agent_port()
        folder = _folder_of_its_own()
        options |= {
            "address": "local",
            "_temp_dir": folder,
            "num_cpus": max(num_cpus or 0, os.cpu_count() or 1),
            "include_dashboard": dashboard,
            "dashboard_port": free_port(),
            "runtime_env": {"env_vars": worker_environment(settings)},
        }
    # Not to be inherited by what this process starts later: a cluster of that would have the same ports.
    with _inherited({} if joined else ports_of_its_own()):
        context = ray.init(**options)
    try:
        if not joined:
            _tell_jobs(folder)
        if joined:
            shared.require(settings, sum(node["Alive"] for node in ray.nodes()))
        url = context.dashboard_url
        yield settings.address or (f"http://{url}" if url else None)
    finally:
        ray.shutdown()
