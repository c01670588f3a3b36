from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from cluster.storage import Storage
from cluster.tables import Table

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


def test_filters_and_columns(table: Table) -> None:
    table.append(rows(1, 2, 3))
    table.append(rows(9, model="other"))
    assert sorted(table.read([("model", "=", "m"), ("n", ">=", 2)], ["n"])["n"].to_pylist()) == [2, 3]
