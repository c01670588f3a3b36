"""The loop as the command line runs it: serving until interrupted, a watch bound to the job API, its state."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cluster.console import say
from cluster.errors import ClusterError, NotFoundError, UserError
from cluster.session import require
from cluster.store.lease import Lease
from cluster.submission.submit import Jobs
from jobs.pipeline import Place
from jobs.spec import Spec
from serve import endpoint
from serve.endpoint import Endpoint
from serve.many import kin

from . import hold, journal, notices, trial
from . import watch as watch_
from .journal import Entry, Journal
from .launcher import Launcher, StandingCluster
from .policy import Decision
from .upkeep import Upkeep
from .watch import Watch
from .windows import accuracies

_LAST = 5
_TERM_SECONDS = 60.0


def bound(spec: Spec, place: Place, launcher: Launcher) -> Watch:
    """A watch whose retrainings run where `launcher` starts them."""
    # Loads models and pandas: not for who only asks the state of the loop.
    from . import promotion

    def finish(submission_id: str) -> None:
        verdict = promotion.finish(spec, place, submission_id)
        if verdict is not None:
            say(f"settled what job {submission_id} left: {'promoted' if verdict.promote else 'refused'}")

    def settle(version: int) -> None:
        say(f"version {version} need not wait any more")
        promotion.settle(spec, place, place.registry.get(spec.name, version))

    def roll_back(version: int, key: str) -> None:
        say(f"rolling back to version {version}")
        promotion.roll_back(spec.name, place, version, key)

    urls = place.settings.notify
    send = notices.channels(urls.get_secret_value()) if urls else None
    return Watch(
        spec=spec,
        storage=place.storage,
        registry=place.registry,
        submit=launcher.launch,
        job_status=launcher.status,
        finish=finish,
        settle=settle,
        roll_back=roll_back,
        send=send,
        lease=_lease(spec, place),
        court=promotion.court(spec, place),
        tidy=Upkeep(spec.name, spec.monitoring, place.storage, _holder()),
    )


def _lease(spec: Spec, place: Place) -> Lease:
    """Of the watch of this process. Its terms outlast the judging of a window."""
    seconds = max(_TERM_SECONDS, 3 * spec.monitoring.check_seconds)
    return Lease(place.storage, f"watch-{spec.name}", _holder(), seconds)


def _holder() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


def watch(
    spec: Spec,
    place: Place,
    launcher: Launcher,
    decided: Callable[[Decision], None],
    ended: threading.Event | None = None,
) -> None:
    """Look for windows and act until `ended` is set, without it until Ctrl-C or SIGTERM (in the main thread)."""
    bound_ = bound(spec, place, launcher)
    if ended is not None:
        watch_.run(bound_, decided, ended)
        return
    with signalled() as told:
        watch_.run(bound_, decided, told)


def watch_once(spec: Spec, place: Place, launcher: Launcher) -> list[Decision]:
    """Judge what is complete and return."""
    return watch_.drain(bound(spec, place, launcher))


def serve(
    spec: Spec,
    place: Place,
    address: str | None,
    *,
    port: int | None,
    ready: Callable[[Endpoint], None],
    decided: Callable[[Decision], None] | None,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then drain. With `decided` the watch runs beside it.

    Ray must be connected, and this must be the main thread.
    """
    from serve import rollout

    launcher = StandingCluster(spec, place, Jobs(address)) if address is not None else None
    watching = bound(spec, place, launcher) if decided is not None and launcher is not None else None
    retraining = spec.scaling.bundles if watching is not None else []
    require([*spec.serving.bundles, *retraining], "serving and scaling")
    where = Endpoint.of(spec, rollout.start(spec, place.settings, port), address)
    endpoint.record(place.storage, where)
    ready(where)
    try:
        with signalled() as ended:
            if watching is not None and decided is not None:
                watch_.run(watching, decided, ended)
            ended.wait()
        say("draining")
    finally:
        endpoint.forget(place.storage, spec.name)
        rollout.stop()


@contextmanager
def signalled() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, also where a shell has started this in the background, deaf to Ctrl-C."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def retrained(spec: Spec, place: Place) -> bool:
    """Whether a retraining of this model has ended and none is open."""
    entries = Journal(place.storage).entries(spec.name, journal.RETRAIN)
    return bool(entries) and not journal.open_entries(entries)


def status(spec: Spec, place: Place, last: int = _LAST) -> dict[str, Any]:
    """Versions, who watches, what is on trial, the `last` windows and decisions, jobs of the cluster that serves."""
    entries = Journal(place.storage).entries(spec.name)
    windows = [dict(e.body) for e in entries if e.kind == journal.WINDOW and e.state == journal.DONE]
    decisions = [e.body for e in entries if e.kind == journal.DECISION]
    held, waits = hold.paused(entries), hold.awaiting(entries)
    try:
        where: Endpoint | None = endpoint.find(place.storage, spec.name, kin.of(spec))
    except NotFoundError:
        where = None
    jobs, unreachable = _jobs((where and where.jobs) or place.settings.address, spec.name)
    return {
        "model": spec.name,
        "serving": where.url if where else None,
        "watching": _lease(spec, place).current(),
        "versions": place.registry.versions(spec.name),
        "trial": _trial(entries),
        "paused": hold.said(held) if held is not None else None,
        "awaits": dict(waits.body) if waits is not None else None,
        "windows": _by_now(place, spec.name, windows[-last:]),
        "decisions": decisions[-last:],
        "jobs": jobs,
        "unreachable": unreachable,
    }


def _by_now(place: Place, model: str, windows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Windows as they were judged, with the accuracy of their own rows by the labels that have come in since."""
    times = [[datetime.fromisoformat(window[name]) for name in ("start", "end")] for window in windows]
    spans = [(int(window["version"]), start, end) for window, (start, end) in zip(windows, times, strict=True)]
    found = accuracies(place.storage, model, spans)
    return [
        {**window, "now": {"accuracy": accuracy, "labelled": labelled}}
        for window, (accuracy, labelled) in zip(windows, found, strict=True)
    ]


def _trial(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """The canary that is on trial and what was said of it last."""
    found = trial.running(entries)
    if found is None:
        return None
    said = [e.body["reasons"] for e in entries if e.kind == journal.LOOK and e.key.startswith(f"{found.key}-")]
    return {**found.body, "began": found.at, "reasons": said[-1] if said else []}


def _jobs(address: str | None, model: str) -> tuple[list[dict[str, Any]], str | None]:
    """A model's jobs, and why there are none to be had."""
    if address is None:
        return [], None
    try:
        found = Jobs(address).list()
    except (ClusterError, UserError) as error:
        return [], str(error)
    of_model = [job for job in found if job.metadata.get("model") == model]
    return [{"submission_id": job.submission_id, "status": job.status} for job in of_model], None
