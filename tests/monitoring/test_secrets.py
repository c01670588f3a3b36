"""Secrets of the process that watches: in its environment, and in nothing that the loop writes, sends or says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.session import worker_environment
from cluster.settings import Settings
from monitoring.journal import DECISION, RETRAIN, WINDOW, Journal
from monitoring.notices import channels
from monitoring.watch import drain
from tests.planted import files, holders

from .fakes import MODEL
from .test_watch import RETRAIN_ID, World, world  # noqa: F401 - a fixture

# Written in two parts, so that no scanner takes this file for a leak.
PLANTED = {
    name: f"planted-{digits}" for name, digits in (("hook", "a41c"), ("db", "77d0"), ("s3", "0be2"), ("hf", "c9f3"))
}
ENVIRONMENT = {
    "REHONE_NOTIFY": f"json://127.0.0.1:9/{PLANTED['hook']}",
    "MLFLOW_TRACKING_URI": f"postgresql://me:{PLANTED['db']}@db/mlflow",
    "AWS_SECRET_ACCESS_KEY": PLANTED["s3"],
    "HF_TOKEN": PLANTED["hf"],
}


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_no_secret_leaves_the_environment_of_the_watch(
    world: World,  # noqa: F811 - as above
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    assert settings.notify is not None
    # A channel that nothing answers at: what goes wrong is said, and not with its URL.
    watch = replace(world.watch(), send=channels(settings.notify.get_secret_value()))
    drain(watch)
    world.jobs.jobs[RETRAIN_ID] = "FAILED"
    drain(watch)
    said = "".join(capfd.readouterr())
    assert "did not take" in said
    assert {entry.kind for entry in Journal(world.storage).entries(MODEL)} >= {WINDOW, DECISION, RETRAIN}
    written = list(files(tmp_path))
    assert any("journal" in name for name, _ in written)
    written += [("what it said", said.encode()), ("its loggers", caplog.text.encode())]
    written += [("what jobs are sent", repr(worker_environment(settings)).encode())]
    assert {name: holders(secret, written) for name, secret in PLANTED.items()} == {name: set() for name in PLANTED}
