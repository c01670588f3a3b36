from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import DataError
from jobs.data import corrections
from jobs.targets import label

LABELS = ["bad", "good"]


def frame(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"input": texts, "label": "good", "row": range(1, len(texts) + 1)})


def file(folder: Path, *lines: str, head: str = "row,input,label") -> Path:
    path = folder / "fixes.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def apply(rows: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return corrections.apply(rows, corrections.read(path), lambda given: label.fault(given, LABELS), str.__eq__)


def test_a_label_is_changed_and_an_empty_one_drops_the_row(tmp_path: Path) -> None:
    path = file(tmp_path, "5,awful,bad,0.9", "1,fine,", head="row,input,label,doubt")
    rows, dropped = apply(frame("fine", "great", "lovely", "warm", "awful"), path)
    assert list(rows["label"]) == ["good", "good", "good", "bad"]
    assert list(rows["row"]) == [2, 3, 4, 5]
    assert dropped[["row", "label", "reason"]].to_numpy().tolist() == [[1, "good", "dropped by a correction"]]


def test_the_hash_follows_from_what_is_said_and_not_from_order_or_place(tmp_path: Path) -> None:
    one = corrections.read(file(tmp_path, "1,a,bad", "2,b,good"))
    (tmp_path / "other").mkdir()
    assert corrections.read(file(tmp_path / "other", "2,b,good", "1,a,bad")).hash == one.hash
    assert corrections.read(file(tmp_path, "1,a,bad", "2,b,bad")).hash != one.hash


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("9,a,bad", "row 2 column 'row': the data has no row 9"),
        ("1,a,bad", "row 2 column 'row': row 1 is corrected twice"),
        ("2,other,bad", "row 2 column 'input': 'other' is not what row 2 of the data says"),
        ("2,b,baad", "row 2 column 'label': 'baad' is no label; labels are bad, good"),
        ("two,b,bad", "row 2 column 'row': 'two' is no row number"),
        ("-2,b,bad", "row 2 column 'row': '-2' is no row number"),
    ],
)
def test_a_correction_that_cannot_be_is_named_by_row_and_column(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        apply(frame("a", "b"), file(tmp_path, "1,a,bad", line))
    assert said in str(caught.value)
    assert "fixes.csv" in str(caught.value)


def test_ten_faults_are_named_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 10 column 'row': the data has no row 19 and 3 more"):
        apply(frame("a"), file(tmp_path, *(f"{row},a,bad" for row in range(10, 23))))


def test_files_that_are_no_corrections(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        corrections.read(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="has no column label"):
        corrections.read(file(tmp_path, "1,a", head="row,input"))
    path = tmp_path / "latin.csv"
    path.write_bytes("row,input,label\n1,schön,bad\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 byte 6: 0xf6 is not UTF-8"):
        corrections.read(path)
