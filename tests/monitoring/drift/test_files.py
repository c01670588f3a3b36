from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import DataError
from monitoring.drift import files


def table(rows: int, seed: int, *, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows),
            "income": rng.normal(30 + shift, 5, rows),
            "city": rng.choice(["Bonn", "Ulm", "Jena"], rows),
            "note": [" ".join(["word"] * int(n)) + f" {i}" for i, n in enumerate(rng.integers(1, 9, rows))],
            "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"),
        }
    )


@pytest.fixture
def written(tmp_path):
    def write(frame: pd.DataFrame, name: str):
        path = tmp_path / name
        if path.suffix == ".parquet":
            frame.to_parquet(path, index=False)
        elif path.suffix == ".jsonl":
            frame.assign(seen=frame["seen"].astype(str)).to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        return path

    return write


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_every_kind_of_file_and_column_is_compared(written, suffix):
    same = files.compared(written(table(300, 0), f"a.{suffix}"), written(table(200, 1), f"b.{suffix}"), 0.01)
    assert not same.drifted
    names = [column.name for column in same.columns]
    assert names[:5] == ["age", "income", "city", "note: length", "note: non-letters"]
    assert (same.reference_rows, same.current_rows) == (300, 200)
    moved = files.compared(written(table(300, 0), f"a.{suffix}"), written(table(200, 1, shift=4), f"c.{suffix}"), 0.01)
    assert {column.name for column in moved.columns if column.drifted} >= {"income"}
    text = files.told(moved)
    assert text.index("income") < text.index("city")
    assert "when nothing has changed anything is flagged with a chance of 0.01" in text


def test_columns_of_one_side_are_named_and_left_out(written):
    found = files.compared(
        written(table(50, 0), "a.csv"), written(table(50, 1).rename(columns={"age": "old"}), "b.csv"), 0.05
    )
    assert found.left_out == ("age", "old")
    assert "only on one side, not compared: age, old" in files.told(found)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "x", "is no table"),
        ("a.csv", "", "cannot be read"),
        ("a.csv", "x,y\n", "has no rows"),
        ("a.csv", "x,y\n1,2,3\n1,2\n4,5,6,7\n", "cannot be read: row 1 column 3"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.parquet", "no", "cannot be read"),
        ("a.csv", "x\n1\n", "shares no column with"),
    ],
)
def test_what_cannot_be_compared_is_one_line(written, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said) as error:
        files.compared(written(table(20, 0), "ref.parquet"), tmp_path / name, 0.05)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such file"):
        files.read(tmp_path / "nothing.csv")


def test_the_verb_answers_in_words_and_in_json(written):
    paths = [str(written(table(200, i, shift=4 * i), f"{i}.csv")) for i in (0, 1)]
    assert "DRIFTED" in CliRunner().invoke(rehone.app, ["drift", *paths]).stdout
    made = json.loads(CliRunner().invoke(rehone.app, ["drift", *paths, "--false-alarm-rate", "0.01", "--json"]).stdout)
    assert (made["drifted"], made["rate"]) == (True, 0.01)
