from __future__ import annotations

import json
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import NotFoundError, UserError
from cluster.settings import Settings
from cluster.store.backup import backup, restore
from cluster.store.storage import Storage
from monitoring.journal import Journal


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(storage=str(tmp_path / "store"))


@pytest.fixture
def kept(settings) -> Storage:
    storage = Storage.from_settings(settings)
    storage.write_bytes("datasets/m/1/train.parquet", b"rows")
    storage.write_bytes("spool/a.jsonl", b"{}\n")
    storage.write_bytes("mlflow/x", b"")
    with closing(sqlite3.connect(Path(settings.storage_root) / "mlflow" / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE versions (name TEXT)")
        database.execute("INSERT INTO versions VALUES ('first')")
    Journal(storage).write("m", "window", "begun", "1-1", {})
    return storage


def test_what_was_there_is_there_again(settings, kept, tmp_path):
    root, file = Path(settings.storage_root), tmp_path / "b.tar.gz"
    made = backup(settings, file)
    assert made.files == sum(path.is_file() for path in root.rglob("*"))
    root.rename(tmp_path / "lost")
    found = restore(settings, file)
    assert (found.files, found.root, found.at) == (made.files, made.root, made.at)
    assert kept.read_bytes("datasets/m/1/train.parquet") == b"rows"
    assert [entry.key for entry in Journal(kept).entries("m")] == ["1-1"]
    with closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM versions").fetchall() == [("first",)]


def test_a_backup_is_whole_while_others_write(settings, kept, tmp_path):
    """Every row of the journal that the backup's log names can be read."""
    ended, written = threading.Event(), []

    def write() -> None:
        while not ended.is_set():
            Journal(kept).write("m", "window", "begun", f"2-{len(written)}", {})
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    while len(written) < 3:
        pass
    before = len(written)
    backup(settings, tmp_path / "b.tar.gz")
    ended.set()
    thread.join()
    Path(settings.storage_root).rename(tmp_path / "lost")
    restore(settings, tmp_path / "b.tar.gz")
    assert before <= len(Journal(kept).entries("m")) - 1 <= len(written)


def test_nothing_is_overwritten_and_nothing_put_elsewhere(settings, kept, tmp_path):
    file = tmp_path / "b.tar.gz"
    backup(settings, file)
    with pytest.raises(UserError, match="is there already"):
        backup(settings, file)
    with pytest.raises(UserError, match="lies in what it is to hold"):
        backup(settings, Path(settings.storage_root) / "b.tar.gz")
    with pytest.raises(UserError, match="is not empty"):
        restore(settings, file)
    with pytest.raises(UserError, match=r"was made of .*store, not of .*other"):
        restore(Settings(storage=str(tmp_path / "other")), file)
    assert not (tmp_path / "other").exists()


def test_what_is_no_backup_is_one_line(settings, tmp_path):
    with pytest.raises(NotFoundError, match="nothing has been kept"):
        backup(settings, tmp_path / "b.tar.gz")
    with pytest.raises(NotFoundError, match="no such file"):
        restore(settings, tmp_path / "b.tar.gz")
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is no whole backup"):
        restore(settings, tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "b.tar.gz", "something")
    with pytest.raises(UserError, match="is no backup of rehone"):
        restore(settings, tmp_path / "c.tar.gz")
    with pytest.raises(UserError, match="is no folder of this machine"):
        backup(Settings(storage="memory://bucket", tracking_uri="http://x"), tmp_path / "d.tar.gz")


def test_a_backup_that_was_cut_off_is_refused(settings, kept, tmp_path):
    file = tmp_path / "b.tar.gz"
    backup(settings, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    Path(settings.storage_root).rename(tmp_path / "lost")
    with pytest.raises(UserError, match="is no whole backup"):
        restore(settings, file)
    assert not Path(settings.storage_root).exists()


def test_the_verbs(settings, kept, tmp_path, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", settings.storage)
    file = str(tmp_path / "b.tar.gz")
    assert json.loads(CliRunner().invoke(rehone.app, ["backup", file, "--json"]).stdout)["files"] > 3
    Path(settings.storage_root).rename(tmp_path / "lost")
    assert "as they were at" in CliRunner().invoke(rehone.app, ["restore", file]).stdout
