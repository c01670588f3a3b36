"""Nothing is lost when nodes and drivers are: really taken back, really killed, beside a run that nobody disturbs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cluster.session import PROJECT
from cluster.store.tracking import Tracker
from jobs import specfile
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import train
from tests import tiny

from . import undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_nodes_that_go_and_come_and_a_killed_driver_cost_time_and_nothing_else(
    process_group: None, spec: Spec, place: Place, tmp_path: Path
) -> None:
    """2 -> 1 -> 2 -> 1 workers in ZeRO stage 2: a preemption with its notice, a new node, a killed node."""
    spec = tiny.still(spec, tmp_path / "base").with_values(
        {
            "scaling.workers": [1, 2],
            "scaling.resize_seconds": 5,
            "training.epochs": 3000,
            "training.patience": 10**6,
            "training.learning_rate": 1e-4,
            "training.zero_stage": 2,
            "training.evaluations_per_epoch": 3,
            "training.max_failures": 1,  # the node that nobody announced
        }
    )
    file, store = tmp_path / "spec.yaml", Path(place.settings.storage)
    file.write_text(specfile.dump(spec))
    command = [sys.executable, "-m", "tests.jobs.elastic", str(file), str(store)]
    # A short folder of its own, for sockets, and so that nobody takes its address for that of a living cluster.
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "RAY_TMPDIR": temporary}
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
    assert steps == list(range(3, 3 * len(steps) + 1, 3))
    reported = Counter(step for step, _ in run.history("workers"))
    assert sum(count - 1 for count in reported.values()) <= 3  # the last one again, when a group has started anew
    undisturbed.compare(curve, spec, place)
