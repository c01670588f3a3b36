from __future__ import annotations

import uuid

import pyarrow as pa
import pytest

from cluster.errors import NotFoundError
from cluster.storage import Storage


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


def test_remove_takes_a_whole_place_and_no_offence(storage: Storage) -> None:
    storage.write_bytes("p/q/r", b"")
    storage.remove("p")
    storage.remove("p")
    assert not storage.exists("p/q/r")
