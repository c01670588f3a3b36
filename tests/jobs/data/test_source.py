from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import DataError
from jobs.data import source
from jobs.spec import DataSpec
from tests import tiny

# datasets leaves a file open when it cannot parse it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _let_go() -> Iterator[None]:
    """Of such files, while their warnings are still ignored and not in the middle of another module's test."""
    yield
    gc.collect()


ROWS = [{"text": f"word {i}", "label": str(i % 2), "document": f"d{i}"} for i in range(6)]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    match kind:
        case "csv":
            tiny.write_csv(path, ROWS)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case "parquet":
            pd.DataFrame(ROWS).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    frame = source.load(DataSpec(source=str(write(tmp_path, kind)), group="document"), tiny.TASK)
    assert list(frame["input"]) == [row["text"] for row in ROWS]
    assert list(frame["label"]) == [row["label"] for row in ROWS]
    assert list(frame["group"]) == [row["document"] for row in ROWS]
    assert list(frame["row"]) == [1, 2, 3, 4, 5, 6]


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", ROWS[:2])
    tiny.write_csv(tmp_path / "b.csv", ROWS[2:])
    assert len(source.load(DataSpec(source=str(tmp_path)), tiny.TASK)) == 6


def test_labels_that_look_like_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\na,01\nb,\nc,NA\n")
    assert list(source.load(DataSpec(source=str(path)), tiny.TASK)["label"]) == ["01", "", "NA"]


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("excel.csv", b"\xef\xbb\xbflabel,text\nx,a\ny,b\n", ["x", "y"]),
        ("tabs.tsv", b"text\tlabel\na\tx\nb\ty\n", ["x", "y"]),
        ("short.csv", b"text,label\na\nb,y\n", ["", "y"]),
        ("numbers.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', ["1", ""]),
        ("array.json", b'[{"text": "a", "label": true}, {"text": "b", "label": false}]', ["True", "False"]),
    ],
)
def test_files_as_other_programs_write_them(tmp_path: Path, name: str, content: bytes, labels: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    frame = source.load(DataSpec(source=str(tmp_path / name)), tiny.TASK)
    assert list(frame["label"]) == labels
    assert list(frame["input"]) == ["a", "b"]


def test_a_folder_of_different_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "b.csv").write_text("text,other\na,x\n")
    with pytest.raises(DataError, match="cannot be read"):
        source.load(DataSpec(source=str(tmp_path)), tiny.TASK)
    (tmp_path / "b.csv").rename(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="a mixture of them"):
        source.load(DataSpec(source=str(tmp_path)), tiny.TASK)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "/nowhere.csv"}, "data.source /nowhere.csv: no such file"),
        ({"input": "txt"}, "data.input: no column 'txt' (did you mean 'text'?)"),
        ({"group": "zzz"}, "data.group: no column 'zzz' (columns are text, label, document)"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, change, said) -> None:
    spec = DataSpec(source=str(write(tmp_path, "csv"))).model_copy(update=change)
    with pytest.raises(DataError) as caught:
        source.load(spec, tiny.TASK)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.csv", "", "is empty"),
        ("header.csv", "text,label\n", "has no rows"),
        ("torn.jsonl", '{"text": "a"\n', "cannot be read"),
        ("wide.csv", "text,label\na,b\nc,d,e,f\n", "cannot be read"),
        ("not.parquet", "text", "cannot be read"),
        ("notes.txt", "text", "holds no CSV, JSONL or Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_gets_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        source.load(DataSpec(source=str(tmp_path / name)), tiny.TASK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "wide.csv",
            b"text,label\na,b\nc,d,e,f\ng,h,i\n",
            "row 2 column 3: 'e' is beyond the 2 columns, row 3 column 3",
        ),
        ("shifted.csv", b"text,label\na,x,\nb,y,\n", "row 1 column 3: '' is beyond the 2 columns, row 2"),
        ("latin.csv", b"text,label\nsch\xf6n,b\nx,\xff\n", "line 2 byte 4: 0xf6 is not UTF-8, line 3 byte 3: 0xff"),
        ("torn.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"\n' * 12, "and 2 more"),
    ],
)
def test_every_fault_has_its_file_row_and_column(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        source.load(DataSpec(source=str(tmp_path / name)), tiny.TASK)
    assert name in str(caught.value)


def test_of_several_files_the_faulty_one_is_named(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", ROWS)
    (tmp_path / "b.csv").write_text("text,label,document\na,b,c,d\n")
    with pytest.raises(DataError, match=r"b\.csv row 1 column 4"):
        source.load(DataSpec(source=str(tmp_path)), tiny.TASK)


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("text,label\n" + "word " * 40_000 + ",a\nshort,b\n")
    assert len(source.load(DataSpec(source=str(tmp_path / "long.csv")), tiny.TASK)["input"][0]) == 199_999
