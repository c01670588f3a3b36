"""Questions to a real log: what they find, what they read, and how Polars and DuckDB read the same tables."""

from __future__ import annotations

import csv
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import rehone
from cluster.errors import ClusterError, UserError
from cluster.store.storage import Storage
from serve.log import log_query, show
from serve.log.log_query import COLUMNS, PLAIN, SHOWN, Query
from serve.log.predictions import Feedback, Prediction, feedback_log, new_id, prediction_log

BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROWS = [  # hours since BEGAN, version, input, label, confidence
    (0, 1, "What a DAY", "pos", 0.00001),
    (6, 1, "100% sure_of it", "neg", 0.5),
    (20, 2, "it's the\nsecond line", "pos", 0.05),
    (30, 2, "back\\slash", "neg", 0.9),
    (48, 2, "never again", "pos", 1.0),
]

# Few letters, so that they meet, with all that LIKE, SQL or a line takes for something else.
TEXTS = st.text(st.sampled_from("aAbß%_\\'\"\n\r\0é\u0301🙂"), max_size=8) | st.text(max_size=8)


def answer(text: str, label: str = "pos", at: datetime = BEGAN) -> Prediction:
    return Prediction(new_id("moods", 1), at, "moods", 1, text, label, 0.5, {}, np.zeros(1, dtype="f4"))


def answered_at(version: int, at: datetime) -> str:
    """An id as one made at that time would be."""
    return f"moods.{version}.{round(at.timestamp() * 1e6):014x}{os.urandom(4).hex()}"


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def ids(storage) -> list[str]:
    made = [
        Prediction(
            answered_at(version, BEGAN + timedelta(hours=hours)),
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
    """Which of ROWS, oldest first; a file that is written has the same."""
    inputs, query = [text for _, _, text, _, _ in ROWS], Query(**asked)
    rows = log_query.rows(storage, "moods", query, COLUMNS, 50)
    assert rows.num_rows == log_query.rows(storage, "moods", query, ("at",), 50).num_rows  # no label is joined for it
    file = Path(storage.root).parent / "found.parquet"
    assert log_query.export(storage, "moods", query, COLUMNS, file, None) == rows.num_rows
    assert pq.read_table(file).sort_by([("at", "descending")]) == rows
    times = rows["at"].to_pylist()
    assert times == sorted(times, reverse=True)
    return [inputs.index(text) for text in reversed(rows["input"].to_pylist())]


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
        ({"contains": "DAY"}, [0]),
        ({"contains": "day"}, []),  # to the letter
        ({"contains": "%"}, [1]),
        ({"contains": "e_o"}, [1]),
        ({"contains": "t's the\nsecond"}, [2]),
        ({"contains": ""}, [0, 1, 2, 3, 4]),
        ({"contains": "_"}, [1]),
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
    (row,) = log_query.rows(storage, "moods", Query(ids=(ids[0],)), COLUMNS, 5).to_pylist()
    assert (row["true_label"], row["labelled_at"]) == ("pos", BEGAN + timedelta(hours=60))
    assert (row["version"], row["confidence"], row["at"]) == (1, 0.00001, BEGAN)
    assert json.loads(row["scores"]) == {"pos": 0.00001}
    assert row["embedding"] == [0.5] * 4


def test_ids_are_found_whenever_they_were_answered(storage):
    made = [answer(text, at=datetime.now(UTC)) for text in "abc"]
    prediction_log(storage).append([one.to_row() for one in made])
    wanted = tuple(one.prediction_id for one in made[1:])
    rows = log_query.rows(storage, "moods", Query(ids=wanted), ("input",), 5)
    assert sorted(rows["input"].to_pylist()) == ["b", "c"]
    assert log_query.rows(storage, "moods", Query(ids=(new_id("moods", 1),)), ("input",), 5).num_rows == 0


def test_a_log_without_answers_or_labels(storage):
    assert found(storage) == found(storage, wrong=True) == found(storage, unlabelled=True) == []
    prediction_log(storage).append([answer(ROWS[0][2]).to_row()])
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


def test_the_newest_come_first_in_the_columns_that_are_asked_for(storage, ids):
    rows = log_query.rows(storage, "moods", Query(), ("true_label", "version", "input"), 3)
    assert rows.column_names == ["true_label", "version", "input"]
    assert rows["input"].to_pylist() == [text for _, _, text, _, _ in ROWS[:1:-1]]
    shown = show.answers(log_query.rows(storage, "moods", Query(), SHOWN, 3)).splitlines()
    assert shown[1].split() == list(SHOWN)
    assert [line.split()[-1] for line in shown[-3:]] == ids[:1:-1]  # whole, to be copied
    assert "it's the second line" in shown[-1]
    assert show.answers(rows.slice(0, 0)) == "no answers"


def test_what_was_sent_moves_no_cursor(storage):
    inputs = ["\x1b[2Jgone " + "x" * 100, "one\ttwo\r\nthree", "a\u202eb\x07\x9b", "日本語 é 🙂"]
    for text in inputs:
        prediction_log(storage).append([answer(text, label="\x1b]0;title\x07" + "y" * 100).to_row()])
        tell(storage, "none", "\x1b[31m", 0)
    shown = show.answers(log_query.rows(storage, "moods", Query(), SHOWN, 9))
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []
    for said in (
        "\\x1b[2Jgone xxx",
        "x…",
        "one two three",
        "a\\u202eb\\x07\\x9b",
        "日本語 é 🙂",
        "\\x1b]0;title\\x07yyy",
        "y…",
    ):
        assert said in shown


@given(st.lists(TEXTS, min_size=1, max_size=6), TEXTS, st.integers(0, 12))
@example(["100%", "100\\%", "1000"], "0%", 0)
@example(["a_b", "axb", "a\\_b", "A_B"], "a_b", 0)
@example(["a\nb", "a b", "it's"], "\n", 0)
@example(["\\", "\\\\", ""], "\\", 0)
@settings(deadline=None, max_examples=60)
def test_contains_finds_what_python_finds(logged, inputs, text, cut):
    inputs = [*inputs, f"{inputs[0]}{text}{inputs[-1]}"]
    wanted = inputs[0][cut:] or text  # often a part of one of them
    storage = logged(inputs)
    for one in (text, wanted):
        rows = log_query.rows(storage, "moods", Query(contains=one), ("input",), 50)
        assert sorted(rows["input"].to_pylist()) == sorted(given for given in inputs if one in given)


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Callable[[Sequence[str]], Storage]:
    """A log of its own for each call."""
    numbers = itertools.count()
    folder = tmp_path_factory.mktemp("logs")

    def made(inputs: Sequence[str]) -> Storage:
        storage = Storage(str(folder / f"{next(numbers)}"))
        prediction_log(storage).append([answer(text).to_row() for text in inputs])
        return storage

    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-10-31", datetime(2026, 10, 31, tzinfo=UTC)),
        ("2026-10-31T10:30", datetime(2026, 10, 31, 10, 30, tzinfo=UTC)),
        ("2026-10-31T10:30+02:00", datetime(2026, 10, 31, 8, 30, tzinfo=UTC)),
        ("90m", BEGAN - timedelta(minutes=90)),
        ("24h", BEGAN - timedelta(days=1)),
        ("7d", BEGAN - timedelta(days=7)),
    ],
)
def test_a_time_as_people_write_it(text, expected):
    assert log_query.moment(text, BEGAN) == expected


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,8}[mhd]|000[01]-01-01T00:00[+-][0-9]{2}:00", fullmatch=True))
@example("999999d")
@example("0001-01-01T00:00+14:00")
@example("9999-12-31T23:59-14:00")
def test_any_text_is_a_time_or_a_mistake(text):
    try:
        assert log_query.moment(text, BEGAN) >= datetime(1970, 1, 1, tzinfo=UTC)
    except UserError as error:
        assert "is no time" in str(error)


@pytest.mark.parametrize(
    ("asked", "columns", "said"),
    [
        ({"unlabelled": True, "wrong": True}, ("at",), "what has no label cannot be wrong"),
        ({"since": BEGAN, "until": BEGAN}, ("at",), "is not before --until"),
        ({"ids": ("nothing",)}, ("at",), "is no prediction id"),
        ({"ids": (new_id("other", 1),)}, ("at",), "is an answer of another model than 'moods'"),
        ({"contains": "\udcff"}, ("at",), "is no text in UTF-8"),
        ({"min_confidence": float("nan")}, ("at",), "nan is no number"),
        ({"max_confidence": float("-inf")}, ("at",), "-inf is no number"),
        ({"label": "\udcff"}, ("at",), "is no text in UTF-8"),
        ({}, ("at", "made up"), "made up is no column"),
        ({}, (), "nothing is no column"),
    ],
)
def test_what_cannot_be_asked(storage, tmp_path, asked, columns, said):
    with pytest.raises(UserError, match=said):
        log_query.rows(storage, "moods", Query(**asked), columns, 5)
    with pytest.raises(UserError, match=said):
        log_query.export(storage, "moods", Query(**asked), columns, tmp_path / "a.parquet", None)
    assert list(tmp_path.glob("a.*")) == []


@pytest.mark.parametrize("limit", [None, 2])
def test_a_file_has_all_or_as_many_as_asked_for(storage, ids, tmp_path, limit):
    expected = log_query.rows(storage, "moods", Query(), COLUMNS, limit or 50)
    parquet, text = tmp_path / "a.parquet", tmp_path / "a.csv"
    assert log_query.export(storage, "moods", Query(), COLUMNS, parquet, limit) == len(expected)
    assert pq.read_table(parquet).sort_by([("at", "descending")]) == expected
    assert log_query.export(storage, "moods", Query(), PLAIN, text, limit) == len(expected)
    with text.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["input"] for row in rows} == set(expected["input"].to_pylist())
    assert {(row["prediction_id"], float(row["confidence"])) for row in rows} == set(
        zip(expected["prediction_id"].to_pylist(), expected["confidence"].to_pylist(), strict=True)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.parquet", "store"}


def test_a_file_without_rows_has_its_columns(storage, tmp_path):
    assert log_query.export(storage, "moods", Query(), ("at", "true_label"), tmp_path / "a.csv", None) == 0
    assert (tmp_path / "a.csv").read_text() == '"at","true_label"\n'
    assert log_query.export(storage, "moods", Query(), COLUMNS, tmp_path / "a.parquet", None) == 0
    assert pq.read_schema(tmp_path / "a.parquet").names == list(COLUMNS)


def test_what_is_no_file_to_write_is_said_before_anything_is_read(storage, ids, tmp_path):
    for csv_, parquet, said in [
        (tmp_path / "a.csv", tmp_path / "a.parquet", "one file at a time"),
        (tmp_path / "a.parquet", None, "does not end with .csv"),
        (None, tmp_path / "a", "does not end with .parquet"),
    ]:
        with pytest.raises(UserError, match=said):
            log_query.target(csv_, parquet)
    assert log_query.target(None, None) is None
    with pytest.raises(UserError, match="no such folder"):
        log_query.export(storage, "moods", Query(), ("at",), tmp_path / "no" / "a.csv", None)
    with pytest.raises(UserError, match="CSV holds no embeddings"):
        log_query.export(storage, "moods", Query(), COLUMNS, tmp_path / "a.csv", None)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        log_query.export(storage, "moods", Query(), ("at",), tmp_path / "folder.csv", None)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_disk_that_is_full_leaves_what_was_there(storage, ids, tmp_path, name):
    """As the kernel says it: for a moment this process may write no file over 64 bytes."""
    (tmp_path / name).write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(ClusterError, match=r"cannot be written: .*File too large"):
            log_query.export(storage, "moods", Query(), ("at", "input"), tmp_path / name, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / name).read_text() == "before"
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.long
def test_an_export_is_written_as_it_is_read(storage, tmp_path):
    """Twice what the process that does it grows by, whose size stays where it is from some 80 MB of rows on."""
    log, inputs = prediction_log(storage), pa.array([os.urandom(150).hex() for _ in range(20_000)])
    one = pa.Table.from_pylist([answer("x").to_row()], schema=log.schema).take(pa.array([0] * len(inputs)))
    one = one.set_column(one.column_names.index("input"), "input", inputs)
    for n in range(48):
        day = pa.array([f"{BEGAN + timedelta(days=n):%Y-%m-%d}"] * len(inputs))
        day = one.set_column(one.column_names.index("day"), "day", day)
        write_deltalake(log.url, day, mode="append", partition_by=log.partition_by)
    file = tmp_path / "a.csv"
    code = f"""if True:
        import os, sys
        from datetime import UTC, datetime
        from pathlib import Path
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # each core reads a part of its own
        from cluster.store.storage import Storage
        from serve.log.log_query import Query, export
        def most():
            # Not ru_maxrss: a new program begins with the peak of whoever started it.
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
        storage, none = Storage({storage.root!r}), Query(until=datetime(2026, 11, 1, tzinfo=UTC))
        assert export(storage, "moods", none, ("at", "input"), Path({str(file)!r}), None) == 0
        before = most()
        assert export(storage, "moods", Query(), ("at", "input"), Path({str(file)!r}), None) == {48 * len(inputs)}
        print(most() - before)
        assert "torch" not in sys.modules  # nor the seconds that it takes to load
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = file.stat().st_size
    shutil.rmtree(storage.root)
    file.unlink()
    assert whole > 300_000_000
    assert 10_000_000 < int(done.stdout) < whole / 2


def test_the_verb(storage, ids, tmp_path, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", storage.root)
    spec = tmp_path / "moods.yaml"
    spec.write_text("name: moods\nbase_model: b\ndata: {source: x.csv}\n")

    def ask(*words: str) -> str:
        done = CliRunner().invoke(rehone.app, ["predictions", str(spec), *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    (wrong,) = json.loads(ask("--wrong", "--json"))
    assert (wrong["prediction_id"], wrong["true_label"]) == (ids[1], "pos")
    assert list(wrong) == list(PLAIN)
    (sure,) = json.loads(ask("--json", "--since", "2026-11-03", "--min-confidence", "1"))
    assert sure["at"] == "2026-11-03T12:00:00Z"
    assert json.loads(ask("--contains", "_", "--columns", "input,version", "--json")) == [
        {"input": "100% sure_of it", "version": 1}
    ]
    assert [line.split()[-1] for line in ask().splitlines()[-5:]] == ids[::-1]
    assert [line.split()[-1] for line in ask("--limit", "1").splitlines()[-1:]] == ids[4:]
    assert ask("--until", "2020-01-01").strip() == "no answers"
    assert json.loads(ask("--until", "2020-01-01", "--json")) == []
    assert json.loads(ask("--csv", str(tmp_path / "a.csv"), "--json")) == {"file": str(tmp_path / "a.csv"), "rows": 5}
    assert "5 answers are in" in ask("--parquet", str(tmp_path / "a.parquet"))
    assert sorted(pq.read_table(tmp_path / "a.parquet")["prediction_id"].to_pylist()) == sorted(ids)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    spec = tmp_path / "moods.yaml"
    spec.write_text("name: moods\nbase_model: b\ndata: {source: x.csv}\n")
    for words, said in [
        (["--since", "yesterday"], "'yesterday' is no time (write 2026-03-01, 2026-03-01T12:30, 90m, 24h or 7d)"),
        (["--id", "nothing"], "'nothing' is no prediction id (send one that /predict has answered with)"),
        (["--columns", "text"], f"text is no column (columns are {', '.join(COLUMNS)})"),
        (["--csv", "a.txt"], "a.txt: does not end with .csv"),
    ]:
        done = CliRunner().invoke(rehone.app, ["predictions", str(spec), *words])
        assert isinstance(done.exception, UserError)
        assert (str(done.exception), done.exception.exit_code) == (said, 2)
    assert CliRunner().invoke(rehone.app, ["predictions", str(spec), "--limit", "0"]).exit_code == 2


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
