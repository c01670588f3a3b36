"""The workers of one trial: the trial's own process and, when it has more, others in the same placement group.

Ray reserves that group as one, so trials cannot wait for each other's second half; when Tune removes it, as it does
with a trial that ASHA stops, Ray ends every worker in it. A trainer nested in a trial gives neither.
"""

from __future__ import annotations

import atexit
import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from jobs.training import loop
from jobs.training.loop import Report, Work

from .paused import Stretch


def run(work: Work, report: Report, stretch: Stretch) -> None:
    """Train a stretch on `spec.scaling.most_workers` workers inside a Tune trial; only the first reports."""
    workers = work.spec.scaling.most_workers
    if workers == 1:
        _settle_alone()
        gc.collect()  # a trial that was in this process before has engines that refer to themselves
        _loop(work, 0, stretch, report)
        return
    import ray

    others = _start(work, stretch, address := _address())
    _member(work, stretch, address, 0, report)
    ray.get(others)


def _start(work: Work, stretch: Stretch, address: str) -> list[Any]:
    import ray
    from ray.util.placement_group import get_current_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    scaling, group = work.spec.scaling, get_current_placement_group()
    member = ray.remote(
        num_cpus=scaling.cpus_per_worker,
        num_gpus=scaling.gpus,
        max_retries=0,
        max_calls=1,  # a process of its own each time: DeepSpeed holds on to the first group that it sees
    )(_member)
    kept = ray.put(work)
    return [
        member.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        ).remote(kept, stretch, address, rank)
        for rank in range(1, scaling.most_workers)
    ]


def _member(work: Work, stretch: Stretch, address: str, rank: int, report: Report | None = None) -> None:
    scaling = work.spec.scaling
    backend = "nccl" if scaling.use_gpu else "gloo"
    with _joined(backend, address, rank, scaling.most_workers):
        _loop(work, rank, stretch, report or _silent)


def _loop(work: Work, rank: int, stretch: Stretch, report: Report) -> None:
    scaling = work.spec.scaling

    def reported(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        stretch.reported(metrics, checkpoint)
        report(metrics, checkpoint)

    loop.run(
        work,
        rank=rank,
        world=scaling.most_workers,
        threads=scaling.cpus_per_worker,
        report=reported,
        resume=stretch.resume(),
        until=stretch.until,
    )


def _silent(metrics: dict[str, Any], checkpoint: Path | None) -> None:
    """The report of every worker but the first."""


def _address() -> str:
    import ray

    from cluster.session import free_port

    return f"tcp://{ray.util.get_node_ip_address()}:{free_port()}"


@cache
def _settle_alone() -> None:
    """A process group of one until this process ends: DeepSpeed holds on to the first group that it sees."""
    left = ExitStack()
    left.enter_context(alone())
    atexit.register(left.close)


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one, as DeepSpeed needs it, without a port."""
    import torch

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with tempfile.TemporaryDirectory() as folder, _joined(backend, f"file://{folder}/store", 0, 1):
        yield


@contextmanager
def _joined(backend: str, address: str, rank: int, world: int) -> Iterator[None]:
    import torch.distributed as dist

    # Ray shows each worker its own device only, so it is the first for every one.
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()
