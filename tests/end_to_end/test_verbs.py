"""Each verb alone, as a user types them one after another, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import specfile
from jobs.spec import Spec
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OPPOSITE = {"positive": "negative", "negative": "positive"}


class User:
    """Types commands against one storage root."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.spec = folder / "spec.yaml"
        self.spec.write_text(specfile.dump(spec))
        self.environment = os.environ | {"REHONE_STORAGE": str(folder / "store")}

    def types(self, *words: str, expect: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "rehone", *words, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def serves(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rehone", "serve", str(self.spec), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )


@pytest.fixture
def user(tmp_path: Path, spec: Spec) -> User:
    values = {
        "sweep.trials": 2,
        "sweep.epochs": 1,
        "monitoring.window": 30,
        "monitoring.consecutive": 1,
        "monitoring.min_labels": 30,
        "retrain.epochs": 10,
        "retrain.rate": 1,
        "evaluation.max_loss_on_old": 1,
    }
    return User(tmp_path, spec.with_values(values))


def test_from_a_spec_to_a_retrained_champion(user: User) -> None:
    spec = str(user.spec)
    prepared = user.types("prepare", spec)
    swept = user.types("tune", spec)
    assert len(swept["trials"]) == 2
    first = user.types("train", spec, "--tuned")
    assert (first["version"], first["verdict"]["promote"]) == (1, True)
    # The same again is not better: the gate keeps the champion.
    user.types("train", spec, "--tuned", expect=3)
    assert user.types("evaluate", spec)["scorecards"]["old"]["rows"] == sum(prepared["counts"]["test"].values())

    server = user.serves()
    try:
        where = _read_json(server)
        _send_shifted_traffic(user, where["url"])
        decided = user.types("watch", spec, "--once")
        assert decided[0]["action"] == "retrain"
        assert [d["action"] for d in decided].count("retrain") == 1
        (job,) = user.types("status", spec)["jobs"]
        user.types("jobs", "wait", job["submission_id"], "--address", where["jobs"])
        retrained = user.types("status", spec)
        assert [job["status"] for job in retrained["jobs"]] == ["SUCCEEDED"]
        assert retrained["versions"][-1]["version"] == 3
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=90)
    assert server.returncode == 0
    status = user.types("status", spec)
    champion = next(v for v in status["versions"] if "champion" in v["aliases"])
    assert champion["version"] == 3
    assert champion["tags"]["parent"] == "1"
    told = user.types("card", spec)["told"]
    assert told["line"] == [1]
    assert told["verdict"]["promote"]
    assert decided[0]["reasons"][0] in told["causes"][0]  # what made the watch retrain
    assert user.types("rollback", "tiny")["version"] == 1
    assert user.types("promote", "tiny", "3")["version"] == 3
    assert {v["version"] for v in user.types("models", "tiny")} == {1, 2, 3}


def _read_json(server: subprocess.Popen[str]) -> Any:
    assert server.stdout is not None
    text = ""
    for line in server.stdout:
        text += line
        if line == "}\n":
            break
    return json.loads(text)


def _send_shifted_traffic(user: User, url: str) -> None:
    """The same words now mean the opposite: the model is wrong, and the labels say so."""
    from serve.client import Client

    rows = [_shifted(row) for row in tiny.rows(90, seed=4)]
    assert user.types("predict", str(user.spec), "one more", "and another")["version"] == 1
    with Client(url, "tiny") as client:
        made = client.predict([row["input"] for row in rows])["predictions"]
        client.feedback({p["prediction_id"]: row["label"] for p, row in zip(made, rows, strict=True)})


def _shifted(row: dict[str, str]) -> dict[str, str]:
    return {"input": f"{row['input']} very very very", "label": OPPOSITE[row["label"]]}
