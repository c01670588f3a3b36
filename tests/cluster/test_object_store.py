"""An S3-compatible storage root, against a real server: files, tables, MLflow's files, nodes that cannot reach it."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.errors import ClusterError, NotFoundError
from cluster.nodes import probe
from cluster.settings import Settings
from cluster.store import fetched, private
from cluster.store.registry import FILES, Registry
from cluster.store.storage import Storage
from cluster.store.tables import Table
from cluster.store.tracking import Tracker

SCHEMA = pa.schema([("model", pa.string()), ("n", pa.int64())])


@pytest.fixture
def storage(bucket: str) -> Storage:
    return Storage.from_settings(Settings(storage=bucket))


def test_files_are_written_listed_replaced_and_removed(storage: Storage) -> None:
    storage.write_json("a/b.json", {"x": 1})
    storage.write_json("a/b.json", {"x": 2})
    storage.write_parquet("a/t.parquet", pa.table({"n": [1, 2, 3]}))
    assert storage.read_json("a/b.json") == {"x": 2}
    assert storage.read_parquet("a/t.parquet")["n"].to_pylist() == [1, 2, 3]
    assert storage.list("a") == ["b.json", "t.parquet"]  # no `.part` that a reader could take for a file
    storage.remove("a")
    assert not storage.exists("a/b.json")
    assert storage.list("a") == []
    with pytest.raises(NotFoundError, match=r"a/b\.json: does not exist"):
        storage.read_bytes("a/b.json")


def test_what_another_process_writes_is_seen(storage: Storage) -> None:
    import boto3

    assert storage.list("seen") == []
    bucket, _, prefix = storage.root.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/seen/late", Body=b"x")
    assert storage.list("seen") == ["late"]
    assert storage.read_bytes("seen/late") == b"x"


def test_a_large_file_goes_there_and_comes_to_other_nodes(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 2**16
    for node in ("here", "there"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / node))
        if node == "here":
            with storage.made("large/x") as part:
                part.write_bytes(content)
        found = Storage(storage.root).on_disk("large/x")
        assert found.is_relative_to(tmp_path / node)
        assert found.read_bytes() == content
    assert storage.list("large") == ["x"]


def test_a_file_is_brought_and_fetched(storage: Storage, tmp_path: Path) -> None:
    mine, copy = tmp_path / "mine", tmp_path / "copy"
    mine.write_bytes(b"whole")
    storage.put("a/b/x", mine)
    storage.get("a/b/x", copy)
    assert copy.read_bytes() == b"whole"
    assert storage.list("a/b") == ["x"]
    with pytest.raises(NotFoundError, match="a/b/y: does not exist"):
        storage.get("a/b/y", copy)


def test_a_transaction_lands_once_while_others_write(storage: Storage) -> None:
    def write(writer: int) -> None:
        table = Table(storage, "numbers", SCHEMA, partition_by=["model"])
        for n in range(4):
            for _ in range(2):
                table.append([{"model": str(writer), "n": n}], (f"writer-{writer}", n))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = Table(storage, "numbers", SCHEMA, partition_by=["model"]).read().to_pylist()
    assert sorted((row["model"], row["n"]) for row in rows) == [(str(w), n) for w in range(3) for n in range(4)]


def test_runs_are_in_postgresql_and_their_files_in_the_object_store(
    bucket: str, postgresql: str, tmp_path: Path
) -> None:
    place = Settings(storage=bucket, tracking_uri=postgresql)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"\x01\x02")
    with Tracker(place, "on-s3").run("train", {"a": 1}, {"kind": "train"}) as run:
        run.log_metrics({"loss": 0.5})
        source = run.log_folder(tmp_path / "model", "model")
    assert source.startswith(f"{bucket}/mlflow/artifacts/")
    version = Registry(place).register("on-s3", run.id, source, {"dataset": "d"})
    Registry(place).promote("on-s3", version.version)
    folder = Registry(place).download(Registry(place).champion("on-s3"))
    assert (folder / "weights").read_bytes() == b"\x01\x02"


def test_a_version_is_fetched_once_a_machine_and_is_what_was_registered(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    monkeypatch.setattr(fetched, "_HELD", 0)  # as other processes of the machine find it
    place = Settings(storage=bucket, tracking_uri=f"sqlite:///{tmp_path}/runs.db")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"ours")
    with Tracker(place, "fetched").run("train", {}, {"kind": "train"}) as run:
        source = run.log_folder(tmp_path / "model", "model")
    registry = Registry(place)
    version = registry.register("fetched", run.id, source, {FILES: fetched.digest(tmp_path / "model")})
    folder = registry.download(version)
    assert folder.is_relative_to(private.folder())
    assert registry.read(version, "weights") == b"ours"

    with monkeypatch.context() as asked:
        asked.setattr(Registry, "_got", None)  # nobody asks the store again
        assert registry.download(version) == folder
    (folder / "weights").write_bytes(b"not so")
    assert (registry.download(version) / "weights").read_bytes() == b"ours"

    (folder / "weights").unlink()
    store = Storage(source)
    store.write_bytes("weights", b"their")
    with pytest.raises(ClusterError, match="what was fetched is not what was written"):
        registry.download(version)
    with pytest.raises(NotFoundError, match=r"fetched version 1 has no card\.md"):
        registry.read(version, "card.md")


def test_a_node_says_whether_it_reaches_the_store(bucket: str) -> None:
    assert probe.reach(bucket, "") == ""
    assert "does not exist" in probe.reach("s3://no-such-bucket/prefix", "")
