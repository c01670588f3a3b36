"""Questions to a real log: what they find, what they read, and how Polars and DuckDB read the same tables."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import rehone
from cluster.errors import UserError
from cluster.storage import Storage
from serve import log_query
from serve.log_query import Query
from serve.predictions import Feedback, Prediction, feedback_log, new_id, prediction_log

BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROWS = [  # hours since BEGAN, version, input, label, confidence
    (0, 1, "What a DAY", "pos", 0.00001),
    (6, 1, "100% sure_of it", "neg", 0.5),
    (20, 2, "it's the\nsecond line", "pos", 0.05),
    (30, 2, "back\\slash", "neg", 0.9),
    (48, 2, "never again", "pos", 1.0),
]


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def ids(storage) -> list[str]:
    made = [
        Prediction(
            new_id("moods", version),
            BEGAN + timedelta(hours=hours),
            "moods",
            version,
            text,
            label,
            confidence,
            {label: confidence},
            np.full(4, 0.5, dtype="f4"),
        )
        for hours, version, text, label, confidence in ROWS
    ]
    for one in made:  # a file each
        prediction_log(storage).append([one.to_row()])
    prediction_log(storage).append([Prediction(**{**vars(made[0]), "model": "other"}).to_row()])
    found = [one.prediction_id for one in made]
    tell(storage, found[0], "neg", 1)
    tell(storage, found[0], "pos", 60)  # second thoughts: it was right
    tell(storage, found[1], "pos", 7)
    return found


def tell(storage: Storage, number: str, label: str, hours: float) -> None:
    feedback_log(storage).append([Feedback(number, BEGAN + timedelta(hours=hours), "moods", label).to_row()])


def found(storage: Storage, **asked: Any) -> list[int]:
    """Which of ROWS, oldest first."""
    inputs = [text for _, _, text, _, _ in ROWS]
    rows = log_query.newest(storage, Query("moods", **asked), 50).to_pylist()
    assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
    daily = [row for table in log_query.days(storage, Query("moods", **asked)) for row in table.to_pylist()]
    assert daily == rows
    return [inputs.index(row["input"]) for row in reversed(rows)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"since": BEGAN + timedelta(hours=6)}, [1, 2, 3, 4]),
        ({"until": BEGAN + timedelta(hours=30)}, [0, 1, 2]),
        ({"since": BEGAN + timedelta(hours=6), "until": BEGAN + timedelta(hours=6.5)}, [1]),
        ({"version": 1}, [0, 1]),
        ({"label": "neg"}, [1, 3]),
        ({"label": "' OR TRUE --"}, []),
        ({"min_confidence": 0.05}, [1, 2, 3, 4]),  # as text, 1e-05 would be more than 0.05
        ({"max_confidence": 0.5}, [0, 1, 2]),
        ({"contains": "day"}, [0]),
        ({"contains": "%"}, [1]),
        ({"contains": "e_o"}, [1]),
        ({"contains": "t's the\nSECOND"}, [2]),
        ({"contains": "\\"}, [3]),
        ({"unlabelled": True}, [2, 3, 4]),
        ({"wrong": True}, [1]),
        ({"wrong": True, "version": 2}, []),
        ({"wrong": True, "since": BEGAN + timedelta(hours=5)}, [1]),
    ],
)
def test_what_is_found(storage, ids, asked, expected):
    assert found(storage, **asked) == expected


def test_the_label_that_came_in_last_is_the_true_one(storage, ids):
    (row,) = log_query.newest(storage, Query("moods", ids=(ids[0],)), 5).to_pylist()
    assert (row["true"], row["labelled_at"]) == ("pos", BEGAN + timedelta(hours=60))
    assert (row["version"], row["confidence"], row["at"]) == (1, 0.00001, BEGAN)
    assert found(storage, ids=tuple(ids[3:])) == [3, 4]


def test_a_log_without_answers_or_labels(storage):
    assert found(storage) == found(storage, wrong=True) == []
    one = Prediction(new_id("moods", 1), BEGAN, "moods", 1, ROWS[0][2], "pos", 0.5, {}, np.zeros(1, dtype="f4"))
    prediction_log(storage).append([one.to_row()])
    assert found(storage) == found(storage, unlabelled=True) == [0]
    assert found(storage, wrong=True) == []


def test_partitions_that_are_not_asked_for_are_not_read(storage, ids):
    partitions = Path(storage.root) / "tables" / "predictions"
    shutil.rmtree(partitions / "model=other")
    assert found(storage) == [0, 1, 2, 3, 4]
    shutil.rmtree(partitions / "model=moods" / "day=2026-11-01")
    assert found(storage, since=datetime(2026, 11, 2, tzinfo=UTC)) == [2, 3, 4]
    with pytest.raises(Exception, match="day=2026-11-01"):
        found(storage)


def test_the_newest_are_shown_on_lines_of_their_own(storage, ids):
    rows = log_query.newest(storage, Query("moods"), 3)
    text = log_query.text(rows, 3)
    assert "the newest 3; see more with --limit" in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ids[:1:-1]
    assert "it's the second line" in text
    assert "5 found" in log_query.text(log_query.newest(storage, Query("moods"), 6), 6)
    assert "no such answer" in log_query.text(rows.slice(0, 0), 3)


def test_an_input_moves_no_cursor(storage):
    text = "\x1b[2Jgone " + "x" * 100
    one = Prediction(new_id("moods", 1), BEGAN, "moods", 1, text, "pos", 0.5, {}, np.zeros(1, dtype="f4"))
    prediction_log(storage).append([one.to_row()])
    shown = log_query.text(log_query.newest(storage, Query("moods"), 3), 3)
    assert "\x1b" not in shown
    assert "[2Jgone xxx" in shown
    assert "x…" in shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6))
def test_any_text_can_be_looked_for(tmp_path_factory, text):
    storage = Storage(str(tmp_path_factory.mktemp("store")))
    rows = [
        Prediction(new_id("m", 1), BEGAN, "m", 1, written, "pos", 0.5, {}, np.zeros(1, dtype="f4")).to_row()
        for written in (f"before {text} after", "")
    ]
    prediction_log(storage).append(rows)
    (one,) = log_query.newest(storage, Query("m", contains=text), 5).to_pylist()
    assert one["input"] == f"before {text} after"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-10-31", datetime(2026, 10, 31, tzinfo=UTC)),
        ("2026-10-31T10:30", datetime(2026, 10, 31, 10, 30, tzinfo=UTC)),
        ("2026-10-31T10:30+02:00", datetime(2026, 10, 31, 8, 30, tzinfo=UTC)),
        ("90m", BEGAN - timedelta(minutes=90)),
        ("2w", BEGAN - timedelta(days=14)),
    ],
)
def test_a_time_as_people_write_it(text, expected):
    assert log_query.moment(text, BEGAN) == expected


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_a_mistake(text):
    try:
        assert log_query.moment(text, BEGAN).tzinfo is UTC
    except UserError as error:
        assert "is no time" in str(error)


def test_what_cannot_be_asked(storage):
    with pytest.raises(UserError, match="neither right nor wrong"):
        Query("moods", unlabelled=True, wrong=True)
    with pytest.raises(UserError, match="is no prediction id"):
        Query("moods", ids=("nothing",))
    with pytest.raises(UserError, match="is no answer of moods"):
        Query("moods", ids=(new_id("other", 1),))


@pytest.mark.parametrize("limit", [None, 2])
def test_a_file_has_all_or_as_many_as_asked_for(storage, ids, tmp_path, limit):
    expected = log_query.newest(storage, Query("moods"), limit or 50)
    assert log_query.write(storage, Query("moods"), tmp_path / "a.parquet", "parquet", limit) == len(expected)
    assert pq.read_table(tmp_path / "a.parquet") == expected
    assert log_query.write(storage, Query("moods"), tmp_path / "a.csv", "csv", limit) == len(expected)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["input"] for row in rows] == expected["input"].to_pylist()
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.parquet", "store"}


def test_a_file_that_cannot_be_written_leaves_what_was_there(storage, ids, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be written"):
        log_query.write(storage, Query("moods"), tmp_path / "no" / "a.csv", "csv")
    (tmp_path / "a.csv").write_text("before")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_query, "_written", full)
    with pytest.raises(UserError, match="No space left on device"):
        log_query.write(storage, Query("moods"), tmp_path / "a.csv", "csv")
    assert (tmp_path / "a.csv").read_text() == "before"
    assert not (tmp_path / "a.csv.part").exists()


def test_the_verb(storage, ids, tmp_path, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", storage.root)
    spec = tmp_path / "moods.yaml"
    spec.write_text("name: moods\nbase_model: b\ndata: {source: x.csv}\n")

    def ask(*words: str) -> str:
        done = CliRunner().invoke(rehone.app, ["predictions", str(spec), *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert [row["prediction_id"] for row in json.loads(ask("--wrong", "--json"))] == [ids[1]]
    assert (
        json.loads(ask("--json", "--since", "2026-11-03", "--min-confidence", "1"))[0]["at"] == "2026-11-03T12:00:00Z"
    )
    assert "5 found" in ask()
    assert "no such answer" in ask("--until", "2020-01-01")
    assert json.loads(ask("--csv", str(tmp_path / "a.csv"), "--json"))["rows"] == 5
    assert "wrote 2 answers" in ask("--parquet", str(tmp_path / "a"), "--id", ids[0], "--id", ids[1])
    assert pq.read_table(tmp_path / "a")["true"].to_pylist() == ["pos", "pos"]


def test_polars_reads_the_log_as_it_stands(storage, ids):
    prediction_log(storage).tidy()
    log = pl.scan_delta(storage.url("tables", "predictions"))
    labels = pl.scan_delta(storage.url("tables", "feedback")).sort("at").unique("prediction_id", keep="last")
    wrong = (
        log.filter(pl.col("model") == "moods", pl.col("day") >= "2026-11-01")
        .join(labels.select("prediction_id", true="label"), on="prediction_id")
        .filter(pl.col("true") != pl.col("label"))
        .collect()
    )
    assert wrong["prediction_id"].to_list() == [ids[1]]
    assert wrong["embedding"].to_list() == [[0.5] * 4]
    assert wrong["at"].to_list() == [BEGAN + timedelta(hours=6)]


def test_duckdb_reads_the_log_as_it_stands(storage, ids):
    prediction_log(storage).tidy()
    files = DeltaTable(storage.url("tables", "predictions")).file_uris()
    rows = duckdb.sql(
        """SELECT day, count(*), min(embedding[4]) FROM read_parquet($files, hive_partitioning = true)
        WHERE model = 'moods' GROUP BY day ORDER BY day""",
        params={"files": files},
    ).fetchall()
    assert [(str(day), *more) for day, *more in rows] == [
        ("2026-11-01", 2, 0.5),
        ("2026-11-02", 2, 0.5),
        ("2026-11-03", 1, 0.5),
    ]
