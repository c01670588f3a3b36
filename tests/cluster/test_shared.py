from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.settings import Settings
from cluster.store import shared


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    return Settings(storage=str(tmp_path / "store"))


def test_a_folder_on_one_node_is_refused_on_more(local: Settings) -> None:
    shared.refuse(local, 1)
    with pytest.raises(UserError, match=r"storage root .*store: a folder on one node, and the cluster has 2") as caught:
        shared.refuse(local, 2)
    assert "REHONE_STORAGE_SHARED=1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_taken_when_it_is_declared_shared_or_no_folder(local: Settings) -> None:
    shared.refuse(local.model_copy(update={"storage_shared": True}), 3)
    shared.refuse(Settings(storage="s3://bucket/prefix"), 3)


def test_the_declaration_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHONE_STORAGE_SHARED", "1")
    made = Settings.from_environment()
    assert made.storage_shared is True
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment().storage_shared is True
    monkeypatch.setenv("REHONE_STORAGE_SHARED", "perhaps")
    with pytest.raises(UserError, match="REHONE_STORAGE_SHARED"):
        Settings.from_environment()


def test_a_job_tells_the_senders_folder_from_another_of_that_name(local: Settings, tmp_path: Path) -> None:
    sent = shared.sent_with(local, "job-1")
    shared.require(local, 1, sent)
    elsewhere = Settings(storage=str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="is not the folder that the job was sent from"):
        shared.require(elsewhere, 1, sent)
    shared.require(elsewhere, 1, {})  # not sent by anybody


def test_a_variable_that_was_not_sent_for_its_password_must_be_there(tmp_path: Path) -> None:
    secret = Settings(storage="s3://bucket", tracking_uri="postgresql://me:hush@db/mlflow")
    sent = shared.sent_with(secret, "job-1")
    assert sent == {"REHONE_EXPECTED": "MLFLOW_TRACKING_URI"}
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI: is not set on the cluster"):
        shared.require(secret, 2, sent)
    shared.require(secret, 2, sent | {"MLFLOW_TRACKING_URI": "postgresql://other:word@db/mlflow"})
