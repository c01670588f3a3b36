"""Runs that were cut off before their model was published: who wants the same training goes on with them.

The same training has the same rows, labels, method and optimisation, and starts from the same weights; on how many
workers and in which ZeRO stage it runs does not matter (`checkpoint.py`). A run is noted down under the storage root
while somebody works on it, who holds a lease on it, and crossed out when that is done.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.console import say
from cluster.errors import ClusterError
from cluster.store.lease import Lease
from cluster.store.storage import Storage
from cluster.store.tracking import Run, Tracker

from .loop import Work

TERM_SECONDS = 20.0
"""After a kill nobody can know for so long that a run is nobody's."""

_NOT_OF_THE_TRAINING = frozenset(
    {"micro_batch_size", "max_failures", "zero_stage", "offload", "activation_checkpointing"}
)


@dataclass(frozen=True)
class Unfinished:
    """Where runs of one project are noted down. `fresh` begins anew whatever is there."""

    storage: Storage
    tracker: Tracker
    fresh: bool = False

    @contextmanager
    def run(self, job: Work, kind: str, new: Callable[[], AbstractContextManager[Run]]) -> Iterator[Run]:
        """The run of this very training that was cut off, else a new one. Of two at once the second has a new one."""
        name = f"{kind}-{identity(job)}"
        note, lease = f"unfinished/{name}.json", Lease(self.storage, f"train-{name}", uuid.uuid4().hex, TERM_SECONDS)
        with _leading(lease) as leads:
            if not leads:
                say("the same training runs elsewhere at this moment: this one is a run of its own")
                with new() as run:
                    yield run
                return
            with self._known(note) or new() as run:
                self.storage.write_json(note, {"run": run.id})
                yield run
            self.storage.remove(note)
        self.storage.remove(f"leases/{lease.name}")  # nobody wants it again

    def _known(self, note: str) -> AbstractContextManager[Run] | None:
        if self.fresh or not self.storage.exists(note):
            return None
        run_id = self.storage.read_json(note)["run"]
        try:
            run = self.tracker.open(run_id)
        except ClusterError:
            say(f"run {run_id} was cut off and MLflow has it no longer: begins anew")
            return None
        step = run.last("step")
        where = "before its first checkpoint" if step is None else f"after step {step:g}"
        say(f"goes on with run {run_id}, which was cut off {where} (--fresh begins anew)")
        return self.tracker.resumed(run)


def identity(job: Work) -> str:
    """Sixteen hex digits of all that decides what a training comes to."""
    spec = job.spec
    training = spec.training.model_dump(mode="json", exclude=set(_NOT_OF_THE_TRAINING))
    held = job.consolidation
    tree = {
        "task": spec.task,
        "base_model": Path(spec.base_model).name,
        "method": spec.method.model_dump(mode="json"),
        "training": training,
        "balance": spec.data.balance,
        "labels": job.labels,
        "epochs": job.epochs,
        "class_weights": job.class_weights,
        "held": held.strength if held else None,
    }
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for rows in (job.train, job.validation, *([held.rows] if held else [])):
        digest.update(rows.identity + b"/")
    for file in sorted(Path(job.start).glob("*/*.safetensors")) if job.start else []:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _leading(lease: Lease) -> Iterator[bool]:
    """Whether this process has the lease, which it then keeps inside the block."""
    if not _acquired(lease):
        yield False
        return
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(lease.seconds / 4):
            lease.acquire()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        lease.release()


def _acquired(lease: Lease) -> bool:
    """Waits for the end of a term that nobody renews: its holder has died."""
    found = lease.current()
    if found is None:
        return lease.acquire()
    say(f"waits {lease.seconds:g} s at most, to see whether who trains the same is still alive")
    while (now := lease.current()) is not None and now.number == found.number:
        time.sleep(lease.seconds / 20)
    return now is None and lease.acquire()
