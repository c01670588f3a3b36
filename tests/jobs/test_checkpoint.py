"""A training that is cut off and goes on elsewhere: on other numbers of workers, in another ZeRO stage.

Workers are processes that stay for the whole module. `test_training.py` and `test_elastic.py` kill real ones.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cluster.session import free_port
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep import group
from jobs.training import batches, loop, train
from jobs.training.loop import Work
from tests import tiny

# What DeepSpeed's stages 1 to 3 import and call, which torch has deprecated.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(
        "ignore:`torch.jit.script_method` is deprecated", "ignore:`torch.distributed.(all_gather|reduce_scatter)"
    ),
]

_INSIDE = ExitStack()


class Cut(Exception):  # noqa: N818 - it is no error
    """What ends a training in the middle."""


class Written:
    """A report that keeps the curve and each checkpoint, and cuts the training off after so many of them."""

    def __init__(self, folder: Path, reports: int | None) -> None:
        self.curve: list[dict[str, Any]] = []
        self._folder, self._reports = folder, reports

    def __call__(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        if checkpoint is None:  # what was reported before it was cut off
            assert (self._folder / str(metrics["step"])).is_dir()
            return
        self.curve.append(metrics)
        shutil.copytree(checkpoint, self._folder / str(metrics["step"]), dirs_exist_ok=True)
        if len(self.curve) == self._reports:
            raise Cut


def member(
    job: Work, rank: int, world: int, folder: Path, reports: int | None, resume: Path | None, notice: int | None
) -> list[dict[str, Any]]:
    """One rank's training, until it ends or is cut off; the process must be in its group. The curve it reported."""
    report = Written(folder, reports)
    noticed = loop.never if notice is None else lambda step: step == notice
    with suppress(Cut):
        loop.run(
            job,
            rank=rank,
            world=world,
            threads=1,
            report=report,
            resume=resume and nullcontext(resume),
            noticed=noticed,
        )
    return report.curve


def join(address: str, rank: int, world: int) -> None:
    _INSIDE.enter_context(group._joined("gloo", address, rank, world))


class Workers:
    """This process as the only worker, and two others that are a group, made when they are first wanted."""

    def __init__(self) -> None:
        self._pair: list[ProcessPoolExecutor] = []

    def __call__(
        self,
        job: Work,
        world: int,
        folder: Path,
        *,
        reports: int | None = None,
        resume: Path | None = None,
        notice: int | None = None,
    ) -> list[dict[str, Any]]:
        """Train on one or two workers. The curve, which all ranks report alike."""
        if world == 1:
            curves = [member(job, 0, 1, folder, reports, resume, notice)]
        else:
            if not self._pair:
                address, spawn = f"tcp://127.0.0.1:{free_port()}", multiprocessing.get_context("spawn")
                self._pair = [ProcessPoolExecutor(1, spawn, join, (address, rank, 2)) for rank in range(2)]
            done = [
                worker.submit(member, job, rank, world, folder, reports, resume, notice)
                for rank, worker in enumerate(self._pair)
            ]
            curves = [one.result(120) for one in done]
        assert all(figures(curve) == figures(curves[0]) for curve in curves)
        return curves[0]

    def end(self) -> None:
        for worker in self._pair:
            worker.shutdown()


@pytest.fixture(scope="module")
def workers(process_group: None) -> Iterator[Workers]:
    made = Workers()
    yield made
    made.end()


@pytest.fixture
def job(spec: Spec, place: Place) -> Work:
    """Two epochs of 6 steps of 18 or 19 rows. No dropout: other numbers of workers draw it differently."""
    spec = spec.with_values(
        {
            "training.epochs": 2,
            "training.patience": 100,
            "training.evaluations_per_epoch": 3,
            "scaling.workers": [1, 2],
            "training.global_batch_size": 21,
            "training.micro_batch_size": 3,
            "method.rank": 4,
        }
    )
    spec = tiny.still(spec, Path(place.settings.storage) / "base")
    return train.work(spec, preparation.prepare(spec, place.storage), place.storage)


def figures(curve: Sequence[dict[str, Any]]) -> list[list[float]]:
    names = ("step", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    return [[row[name] for name in names] for row in curve if "train_loss" in row]


@pytest.mark.parametrize(
    ("stages", "method"),
    [((0, 0, 0), "lora"), ((1, 1, 1), "lora"), ((2, 2, 2), "lora"), ((3, 3, 3), "lora"), ((0, 3, 1), "full")],
)
def test_another_number_of_workers_goes_on_as_if_nothing_had_been(
    workers: Workers, job: Work, tmp_path: Path, stages: tuple[int, int, int], method: str
) -> None:
    """2 -> 1 -> 2 workers, who cannot share a batch evenly, cut off twice, beside 1 that never was."""
    job = replace(job, spec=job.spec.with_values({"method.name": method}))
    whole = workers(replace(job, zero_stage=0), 1, tmp_path / "whole")
    parts, resume = [], None
    for world, stage, reports in zip((2, 1, 2), stages, (1, 3, None), strict=True):
        part = workers(replace(job, zero_stage=stage), world, tmp_path / "parts", reports=reports, resume=resume)
        assert {row["workers"] for row in part} == {world}
        parts += part
        resume = tmp_path / "parts" / str(part[-1]["step"])
    assert [row["step"] for row in parts] == [2, 4, 6, 8, 10, 12]
    np.testing.assert_allclose(figures(parts), figures(whole), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("stages", [(0, 0), (2, 0)])
def test_so_it_does_with_copies_in_fp32_of_weights_in_bf16(
    workers: Workers, job: Work, tmp_path: Path, stages: tuple[int, int]
) -> None:
    job = replace(job, spec=job.spec.with_values({"training.precision": "bf16"}))
    whole = workers(replace(job, zero_stage=0), 1, tmp_path / "whole")
    before = workers(replace(job, zero_stage=stages[0]), 2, tmp_path / "parts", reports=3)
    after = workers(replace(job, zero_stage=stages[1]), 1, tmp_path / "parts", resume=tmp_path / "parts" / "6")
    losses = [[row["validation_loss"] for row in curve] for curve in (before + after, whole)]
    np.testing.assert_allclose(*losses, atol=1e-3)


def test_a_notice_saves_between_reports_and_nothing_is_done_twice(workers: Workers, job: Work, tmp_path: Path) -> None:
    whole = workers(job, 1, tmp_path)
    before = workers(job, 2, tmp_path, reports=3, notice=5)  # after steps 2, 4 and, with a notice, 5
    after = workers(job, 2, tmp_path, resume=tmp_path / "5")
    assert [row["step"] for row in before + after] == [2, 4, 5, 6, 8, 10, 12]
    np.testing.assert_allclose(figures(before + after), figures(whole), rtol=2e-4, atol=2e-5)


def test_what_has_ended_is_not_gone_on_with(workers: Workers, job: Work, tmp_path: Path) -> None:
    early = replace(job, spec=job.spec.with_values({"training.patience": 1, "training.learning_rate": 0.5}))
    curve = workers(early, 1, tmp_path)
    assert curve[-1]["stopped_early"]
    assert workers(early, 1, tmp_path, resume=tmp_path / str(curve[-1]["step"])) == []


def test_a_checkpoint_holds_each_tensor_once_and_whole(workers: Workers, job: Work, tmp_path: Path) -> None:
    """As one worker writes it, so do two together, in any stage."""
    found = {}
    for world, stage in ((1, 0), (2, 2), (2, 3)):
        folder = tmp_path / f"{world}-{stage}"
        workers(replace(job, zero_stage=stage), world, folder, reports=1)
        files = sorted((folder / "2").glob("state-*.safetensors"))
        assert len(files) == world
        parts = [load_file(file) for file in files]
        found[world, stage] = {name: part.shape for tensors in parts for name, part in tensors.items()}
        assert sum(map(len, parts)) == len(found[world, stage])
    assert found[1, 0] == found[2, 2] == found[2, 3]
    assert {name.partition("/")[0] for name in found[1, 0]} == {"weight", "exp_avg", "exp_avg_sq"}


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=90),
    st.integers(1, 24),
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), max_size=8),
)
def test_each_row_is_seen_once_an_epoch_however_often_it_is_cut_off(
    lengths: list[int], batch: int, epochs: int, every: int, cuts: list[tuple[int, int]]
) -> None:
    """`cuts`: workers of a group, and the steps it takes before it dies; it leaves a checkpoint each `every` steps."""
    per_epoch = -(-len(lengths) // batch)
    total, saved = per_epoch * epochs, 0
    kept: list[list[int]] = []
    for world, life in [*cuts, (2, per_epoch * epochs)]:
        accumulation, step, since = math.ceil(math.ceil(batch / world) / 3), saved, []
        for rows in list(batches.steps(lengths, batch, 1, begin=saved, end=total))[:life]:
            parts = [list(batches.micro_batches(rows, rank, world, accumulation)) for rank in range(world)]
            assert {len(part) for part in parts} == {accumulation}
            shares = [share for part in parts for _, share in part]
            assert math.isclose(math.fsum(shares), world * accumulation)
            since += [[row for part in parts for chunk, share in part if share for row in chunk]]
            step += 1
            if step % every == 0 or step == total:
                kept, saved, since = kept + since, step, []
    assert saved == total
    for number in range(epochs):
        seen = [row for step in kept[number * per_epoch : (number + 1) * per_epoch] for row in step]
        assert sorted(seen) == list(range(len(lengths)))
