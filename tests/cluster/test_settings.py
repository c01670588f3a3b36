from __future__ import annotations

import pytest

from cluster.errors import UserError
from cluster.session import worker_environment
from cluster.settings import Settings


def test_the_environment_is_read_when_asked_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHONE_STORAGE", "s3://bucket/prefix/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    made = Settings.from_environment()
    assert (made.storage_root, made.tracking_uri, made.is_local) == (
        "s3://bucket/prefix",
        "http://mlflow:5000",
        False,
    )


def test_a_local_root_is_absolute_so_that_every_process_means_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(storage="here").storage_root == str(tmp_path / "here")
    assert Settings(storage="here").spool_root == tmp_path / "here" / "spool"


def test_a_worker_gets_the_same_settings(tmp_path, monkeypatch) -> None:
    made = Settings(storage=str(tmp_path), tracking_uri="http://mlflow:5000", cpu_watts=0.0, grid_grams=412.5)
    for name, value in worker_environment(made).items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == made


@pytest.mark.parametrize("value", ["ten", "-1", "nan"])
def test_an_amount_that_is_none_is_said_in_one_line(monkeypatch, value: str) -> None:
    monkeypatch.setenv("REHONE_CPU_WATTS", value)
    with pytest.raises(UserError, match=f"^REHONE_CPU_WATTS: input should be .*, got '{value}'$"):
        Settings.from_environment()
