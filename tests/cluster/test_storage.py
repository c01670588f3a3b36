from __future__ import annotations

import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.errors import NotFoundError
from cluster.store import fetched
from cluster.store.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write_json("a/b.json", {"x": [1, 2]})
    storage.write_parquet("a/t.parquet", pa.table({"n": [1, 2, 3]}))
    assert storage.read_json("a/b.json") == {"x": [1, 2]}
    assert storage.read_parquet("a/t.parquet")["n"].to_pylist() == [1, 2, 3]
    assert storage.list("a") == ["b.json", "t.parquet"]


def test_a_second_write_replaces_the_first(storage: Storage) -> None:
    storage.write_bytes("x", b"one")
    storage.write_bytes("x", b"two")
    assert storage.read_bytes("x") == b"two"


def test_what_is_not_there_is_said(storage: Storage) -> None:
    assert not storage.exists("nothing")
    assert storage.list("nothing") == []
    with pytest.raises(NotFoundError, match="nothing: does not exist"):
        storage.read_bytes("nothing")


def test_a_file_is_brought_and_fetched(storage: Storage, tmp_path: Path) -> None:
    mine, copy = tmp_path / "mine", tmp_path / "copy"
    for content in (b"one", b"two"):
        mine.write_bytes(content)
        storage.put("a/x", mine)
        storage.get("a/x", copy)
        assert copy.read_bytes() == content
    assert storage.list("a") == ["x"]
    with pytest.raises(NotFoundError, match="a/y: does not exist"):
        storage.get("a/y", copy)


def test_a_file_is_there_when_it_is_whole(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))

    def half() -> None:
        with storage.made("a/x") as part:
            part.write_bytes(b"hal")
            assert not storage.exists("a/x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert storage.list("a") == []
    with storage.made("a/x") as part:
        part.write_bytes(b"whole")
    assert storage.read_bytes("a/x") == b"whole"
    assert storage.on_disk("a/x").read_bytes() == b"whole"
    assert [path.name[-1:] for path in tmp_path.rglob("*") if path.is_file()] == ["x"]


def test_a_node_fetches_a_file_once_however_many_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, fetched = f"memory://{uuid.uuid4().hex}", []
    Storage(url).write_bytes("a/x", b"whole")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    fetch = MemoryFileSystem.get_file

    def slowly(self: MemoryFileSystem, source: str, target: str) -> None:
        fetched.append(source)
        Path(target).write_bytes(b"ha")
        time.sleep(0.2)
        fetch(self, source, target)

    monkeypatch.setattr(MemoryFileSystem, "get_file", slowly)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Storage(url).on_disk("a/x").read_bytes(), range(8)))
    assert found == [b"whole"] * 8
    assert len(fetched) == 1


def test_half_a_file_is_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(fetched, "_HELD", 0)  # as another process finds it
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.write_bytes("a/x", b"whole")
    storage.on_disk("a/x").write_bytes(b"wh")  # after a power cut
    assert storage.on_disk("a/x").read_bytes() == b"whole"


def test_what_is_not_there_cannot_be_fetched(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    with pytest.raises(NotFoundError, match="a/x: does not exist"):
        storage.on_disk("a/x")


def test_remove_takes_a_whole_place_and_no_offence(storage: Storage) -> None:
    storage.write_bytes("p/q/r", b"")
    storage.remove("p")
    storage.remove("p")
    assert not storage.exists("p/q/r")
