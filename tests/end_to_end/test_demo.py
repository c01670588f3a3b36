"""The whole loop on the real model and data: every stage must have happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


# The demo's own budget of 2 points is 6 of 346 rows, which chance can use up; here the loop has to close, and its sweep is
# a smaller one and its first training shorter.
SETTINGS = ("evaluation.max_loss_on_old=0.06", "sweep.trials=2", "sweep.epochs=1", "training.epochs=2")
COMMAND = [sys.executable, "-m", "rehone", "demo", *(word for value in SETTINGS for word in ("--set", value))]


def test_the_loop_closes_also_after_a_run_that_was_killed(tmp_path: Path) -> None:
    environment = os.environ | {
        "REHONE_STORAGE": str(tmp_path / "store"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    killed = subprocess.Popen(COMMAND, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "store" / "demo" / "store" / "mlflow").exists() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(10)  # into the sweep
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "demo-summary.json").read_text())
    assert json.loads((tmp_path / "store" / "demo" / "summary.json").read_text()) == summary
    accuracy = summary["accuracy"]
    assert accuracy["tweets_before"] > accuracy["movies_before"] + 0.05
    assert accuracy["movies_after"] > accuracy["movies_before"]
    assert summary["phases"][0]["alarms"] == 0
    assert sum(phase["retrains"] for phase in summary["phases"]) == 1
    assert sum(phase["failed"] for phase in summary["phases"]) == summary["swap_failed_requests"] == 0
    assert summary["acknowledged"] == summary["logged"] > 0
    assert [(v["version"], v["alias"]) for v in summary["versions"]] == [(1, "previous"), (2, "champion")]
    assert (tmp_path / "demo-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert set(summary) >= {
        "accuracy",
        "phases",
        "alarm_after_requests",
        "retrain_seconds",
        "swap_failed_requests",
        "acknowledged",
        "logged",
        "versions",
        "decisions",
        "stages",
        "wall_seconds",
    }
