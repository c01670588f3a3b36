"""The whole loop on the real model and data, smaller: every stage must have happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_loop_closes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rehone", "demo", "--fast"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"REHONE_STORAGE": str(tmp_path / "store"), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
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
