from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.faults import first_ten, in_file


@pytest.mark.parametrize(("count", "more"), [(0, ""), (10, ""), (11, " and 1 more"), (300, " and 290 more")])
def test_ten_are_named_and_the_others_counted(count: int, more: str) -> None:
    said = first_ten(f"row {i}" for i in range(count))
    assert said.removesuffix(more).count("row") == min(count, 10)
    assert said.endswith(more)


def test_a_table_with_too_many_fields_names_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("text,label\na,b\nc,d,e,f\n\n" + "x,y,z\n" * 12)
    found = list(in_file(path))
    assert found[0] == "row 2 column 3: 'e' is beyond the 2 columns"
    assert len(found) == 13


def test_bytes_that_are_no_text_are_named_by_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\ngut,a\nschön,b\n".encode("latin-1"))
    assert list(in_file(path)) == ["line 3 byte 4: 0xf6 is not UTF-8"]


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.tsv"
    path.write_text("text\tlabel\ttext\na\tb\tc\n")
    assert list(in_file(path)) == ["column 'text' is there twice"]


def test_lines_that_are_no_json_and_values_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b"\n[1]\n{"text": null, "label": "x"}\n')
    torn, listed, other = in_file(path)
    assert torn.startswith("row 2 column 13: Expecting ',' delimiter")
    assert listed == "row 3: is a list and no object"
    assert other == "row 4 column 'label': str, but int in row 1"


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=8))
def test_a_sound_file_has_no_faults(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    path = tmp_path_factory.mktemp("sound") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert list(in_file(path)) == []
