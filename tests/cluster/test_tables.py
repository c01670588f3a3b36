from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from cluster.errors import ClusterError
from cluster.store.storage import Storage
from cluster.store.tables import Table

SCHEMA = pa.schema([("model", pa.string()), ("n", pa.int64())])


@pytest.fixture
def table(tmp_path) -> Table:
    return Table(Storage(str(tmp_path)), "numbers", SCHEMA, partition_by=["model"])


def rows(*numbers: int, model: str = "m") -> list[dict[str, object]]:
    return [{"model": model, "n": n} for n in numbers]


def test_before_the_first_row_it_is_empty_with_its_columns(table: Table) -> None:
    assert table.read().num_rows == 0
    assert table.read(columns=["n"]).schema.names == ["n"]


def test_one_transaction_lands_once_whoever_repeats_it(table: Table) -> None:
    assert table.append(rows(1, 2), ("writer", 0))
    assert not table.append(rows(1, 2), ("writer", 0))
    assert table.append(rows(3), ("writer", 1))
    assert table.append(rows(4), ("another", 0))
    assert sorted(table.read()["n"].to_pylist()) == [1, 2, 3, 4]


def test_batches_of_several_writers_are_one_file_and_each_lands_once(table: Table) -> None:
    table.append(rows(1), ("a", 0))
    batches = [(rows(1), ("a", 0)), (rows(2), ("a", 1)), (rows(3), ("a", 2)), (rows(4, 5), ("b", 7))]
    assert table.append_all(batches) == 3
    assert table.append_all(batches) == 0
    assert table.append_all([*batches, (rows(6), ("b", 8))]) == 1
    assert sorted(table.read()["n"].to_pylist()) == [1, 2, 3, 4, 5, 6]
    assert table.tidy().before == 3  # a file for each of three commits


def test_writers_at_the_same_moment_lose_and_double_nothing(table: Table) -> None:
    """Not even when there is no table yet, which each of them then makes."""
    writers, first = 6, []
    ready = threading.Barrier(writers)

    def write(number: int) -> None:
        ready.wait()
        first.append(table.append(rows(0), ("shared", 0)))
        table.append(rows(number), (f"writer-{number}", 0))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(table.read()["n"].to_pylist()) == list(range(writers + 1))
    assert sorted(first) == [False] * (writers - 1) + [True]


def test_a_table_that_another_thread_makes_while_one_looks_was_never_gone(table: Table, monkeypatch) -> None:
    look = table._open

    def looked() -> None:
        monkeypatch.setattr(table, "_open", look)
        assert table.append(rows(1), ("another", 0))

    monkeypatch.setattr(table, "_open", looked)
    assert table.append(rows(2), ("writer", 0))
    assert sorted(table.read()["n"].to_pylist()) == [1, 2]


def test_filters_and_columns(table: Table) -> None:
    table.append(rows(1, 2, 3))
    table.append(rows(9, model="other"))
    assert sorted(table.read([("model", "=", "m"), ("n", ">=", 2)], ["n"])["n"].to_pylist()) == [2, 3]


NASTY = ["it's", '"', "a;DROP TABLE t", "é\u4e2d", "%_", "\\"]


@pytest.mark.parametrize("value", NASTY)
def test_any_text_is_a_value_and_nothing_else(table: Table, value: str) -> None:
    for number, model in enumerate(NASTY):
        table.append(rows(number, model=model))
    wanted = [NASTY.index(value)]
    assert table.read([("model", "=", value)])["n"].to_pylist() == wanted
    assert table.read([("model", "in", [value])])["n"].to_pylist() == wanted
    assert len(table.read([("model", "in", NASTY)])) == len(NASTY)
    assert table.read([("model", "in", [])]).num_rows == 0


def test_what_is_read_has_the_tables_own_types(tmp_path) -> None:
    schema = pa.schema(
        [
            ("at", pa.timestamp("us", tz="UTC")),
            ("text", pa.string()),
            ("points", pa.list_(pa.float32())),
            ("x", pa.float64()),
        ]
    )
    table = Table(Storage(str(tmp_path)), "mixed", schema)
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
    table.append([{"at": at, "text": None, "points": [1.5, 2.5], "x": None}])
    found = table.read([("at", ">=", at)])
    assert found.schema == schema
    assert found.to_pylist() == [{"at": at, "text": None, "points": [1.5, 2.5], "x": None}]
    assert table.read([("at", ">", at)]).num_rows == 0


def test_a_process_that_has_read_ends_well(table: Table, tmp_path) -> None:
    """Arrow's reader of tables aborts every second one that ends right after."""
    table.append(rows(1, 2))
    code = (
        "import pyarrow as pa, sys\n"
        "from cluster.store.storage import Storage\nfrom cluster.store.tables import Table\n"
        "schema = pa.schema([('model', pa.string()), ('n', pa.int64())])\n"
        "assert Table(Storage(sys.argv[1]), 'numbers', schema, ['model']).read().num_rows == 2\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


@pytest.mark.slow  # an S3 server in a process of its own
def test_a_table_in_an_object_store(bucket: str) -> None:
    table = Table(Storage(bucket), "numbers", SCHEMA, partition_by=["model"])
    assert table.append(rows(1, 2), ("writer", 0))
    assert not table.append(rows(1, 2), ("writer", 0))
    assert sorted(table.read([("n", ">", 1)], ["n"])["n"].to_pylist()) == [2]


def test_a_table_that_is_gone_is_not_begun_anew(table: Table, tmp_path) -> None:
    assert table.append(rows(1))
    place = tmp_path / "tables"
    place.rename(tmp_path / "away")
    with pytest.raises(ClusterError, match="the table was there and is gone"):
        table.append(rows(2))
    assert not place.exists()
    (tmp_path / "away").rename(place)
    assert table.append(rows(2))
    assert table.read().num_rows == 2


@pytest.mark.parametrize("number", [0.00001, 1e-300, 1e22, -0.5, 0.0, 5e-324, 1.7976931348623157e308])
def test_a_float_is_compared_as_a_number_however_it_is_written(tmp_path, number: float) -> None:
    table = Table(Storage(str(tmp_path)), "floats", pa.schema([("x", pa.float64())]))
    table.append([{"x": number}, {"x": -1e308}, {"x": 9.0}])
    assert table.read([("x", "=", number)])["x"].to_pylist() == [number]
    assert sorted(table.read([("x", ">=", number)])["x"].to_pylist()) == sorted(x for x in (number, 9.0) if x >= number)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_no_query_can_hold_is_refused(table: Table, number: float) -> None:
    table.append(rows(1))
    with pytest.raises(ValueError, match="has no literal for"):
        table.read([("n", "<", number)])
