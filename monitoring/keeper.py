"""The watch as a detached actor on the cluster: it outlives the command that started it.

Ray starts it anew, on another node if need be, when its process or its node dies; the journal says where it was, and
the lease keeps a second one idle. It takes no CPU from trainings.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import traceback
from typing import Any

from cluster.console import say
from cluster.errors import ClusterError, NotFoundError, RehoneError
from cluster.session import connect, worker_environment
from cluster.settings import Settings
from cluster.submission.submit import Jobs
from jobs.pipeline import Place
from jobs.spec import Spec

from . import controller, show
from .launcher import StandingCluster, stored

_NAMESPACE = "rehone"
_STOP_SECONDS, _POLL_SECONDS = 60.0, 0.5


class Keeper:
    """Runs in the actor's process. What the watch itself cannot bear ends the process, for Ray to start it anew."""

    def __init__(self, spec: Spec, settings: Settings, address: str) -> None:
        self._spec, self._place, self._address = spec, Place.from_settings(settings), address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def pid(self) -> int:
        return os.getpid()

    def stop(self) -> None:
        """Finish the look that is under way and give the lease back."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._spec.monitoring.check_seconds
        while not self._ended.is_set():
            try:
                launcher = StandingCluster(self._spec, self._place, Jobs(self._address))
                controller.watch(self._spec, self._place, launcher, self._tell, self._ended)
            except RehoneError as error:  # nothing is promoted yet, or the storage's fault: it may pass
                say(f"watch: {error}; looking again in {pause:g} s")
                self._ended.wait(pause)
            except BaseException:  # noqa: BLE001 - whatever it is: it is told, and Ray starts the process anew
                traceback.print_exc()
                time.sleep(pause)
                os._exit(1)

    def _tell(self, decision: Any) -> None:
        say(show.decision(decision))


def keep(spec: Spec, place: Place, address: str) -> None:
    """Leave the watch of a model to the cluster whose job API is at `address`, unless it runs there already.

    A watch that runs keeps the spec it was started with: let it go first for another. Raises ClusterError.
    """
    if _inside():
        with connect(place.settings):
            start(spec, place.settings, address)
    else:
        _as_job("--detach", spec, place, address)


def let_go(spec: Spec, place: Place, address: str) -> None:
    """End the watch that the cluster keeps. Raises NotFoundError where none runs, ClusterError."""
    if _inside():
        with connect(place.settings):
            stop(spec.name)
    else:
        _as_job("--stop", spec, place, address)


def start(spec: Spec, settings: Settings, address: str) -> int:
    """The actor's process id. Ray must be connected."""
    import ray

    kind: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Keeper)
    options = {"name": _name(spec.name), "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return int(ray.get(kind.options(**options).remote(spec, settings, address).pid.remote()))


def stop(model: str) -> None:
    """Raises NotFoundError where none runs. Ray must be connected."""
    import ray

    try:
        actor = ray.get_actor(_name(model), namespace=_NAMESPACE)
    except ValueError:
        raise NotFoundError("the cluster keeps no watch of it", where=model, mend="start one with --detach") from None
    try:
        ray.get(actor.stop.remote(), timeout=_STOP_SECONDS)
    finally:
        ray.kill(actor, no_restart=True)


def _name(model: str) -> str:
    return f"watch-{model}"


def _inside() -> bool:
    """Whether this process runs on the cluster: only from there an actor can be made."""
    return "RAY_ADDRESS" in os.environ


def _as_job(verb: str, spec: Spec, place: Place, address: str) -> None:
    """Run `rehone watch SPEC VERB` there and wait for its end."""
    jobs, submission_id = Jobs(address), f"{spec.name}-watch{verb}-{secrets.token_hex(4)}"
    arguments = ["watch", stored(spec, place), verb, "--address", address]
    jobs.submit(arguments, submission_id, worker_environment(place.settings), {"model": spec.name, "kind": "watch"})
    while (job := jobs.get(submission_id)) is not None and not job.ended:
        time.sleep(_POLL_SECONDS)
    if job is None or job.status != "SUCCEEDED":
        mend = f"see `rehone jobs logs {submission_id}`"
        raise ClusterError(f"could not do `watch {verb}`", where=f"job {submission_id}", mend=mend)
