"""Nothing is lost when nodes and drivers are: really taken back, really killed, beside a run that nobody disturbs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.session import PROJECT
from cluster.tracking import Tracker
from jobs import loop, specfile, train
from jobs.data import preparation
from jobs.loop import Work
from jobs.pipeline import Place
from jobs.spec import Spec

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class EnoughError(Exception):
    """Ends a training that is only to be compared with."""


def undisturbed(job: Work, last: int) -> dict[int, dict[str, Any]]:
    """The reports by step of one worker in this process, up to a step."""
    found: dict[int, dict[str, Any]] = {}

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        found[metrics["step"]] = metrics
        if metrics["step"] >= last:
            raise EnoughError

    with suppress(EnoughError):
        loop.run(job, rank=0, world=1, threads=1, report=report)
    return found


def still(spec: Spec, folder: Path) -> Spec:
    """The spec on a copy of its base model without dropout, which other numbers of workers draw differently."""
    shutil.copytree(spec.base_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return spec.with_values({"base_model": str(folder), "method.dropout": 0})


def test_nodes_that_go_and_come_and_a_killed_driver_cost_time_and_nothing_else(
    process_group: None, spec: Spec, place: Place, tmp_path: Path
) -> None:
    """2 -> 1 -> 2 -> 1 workers in ZeRO stage 2: a preemption with its notice, a new node, a killed node."""
    spec = still(spec, tmp_path / "base").with_values(
        {
            "scaling.workers": [1, 2],
            "scaling.resize_seconds": 5,
            "training.epochs": 3000,
            "training.patience": 10**6,
            "training.learning_rate": 1e-4,
            "training.zero_stage": 2,
            "training.evaluations_per_epoch": 1,
            "training.max_failures": 3,
        }
    )
    file, store = tmp_path / "spec.yaml", Path(place.settings.storage)
    file.write_text(specfile.dump(spec))
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "tests.jobs.elastic", str(file), str(store)]
    driver = subprocess.Popen(command, env=environment, cwd=PROJECT, start_new_session=True, stdout=subprocess.PIPE)
    try:
        said, _ = driver.communicate(timeout=540)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # its raylets too
        driver.wait()
    assert driver.returncode == -signal.SIGKILL
    print(said.decode())  # what is seen when it fails
    happened = [json.loads(line)["what"] for line in said.decode().splitlines() if line.startswith("{")]
    assert happened == ["two workers", "saved on notice", "one worker", "two workers again", "one worker again"]
    (kept,) = Tracker(place.settings, spec.name).runs()
    run = Tracker(place.settings, spec.name).open(kept["id"])
    curve = train.curve(run)
    steps = [row["step"] for row in curve]
    assert steps == list(range(7, 7 * len(steps) + 1, 7))
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    whole = undisturbed(replace(job, zero_stage=0), int(steps[-1]))
    for name in ("train_loss", "validation_loss", "learning_rate"):
        np.testing.assert_allclose([row[name] for row in curve], [whole[int(s)][name] for s in steps], rtol=1e-3)
