from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cluster.errors import UserError
from jobs.card import page


def cells(markdown: str) -> list[str]:
    """Plain text of the cells of the first row of a table."""
    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(markdown)
    body = [i for i, token in enumerate(tokens) if token.type == "td_open"]
    return ["".join(child.content for child in tokens[i + 1].children or ()) for i in body]


@given(st.lists(st.text("ab|\\`*_[]()<>!#&;~-\n é", min_size=1, max_size=12), min_size=2, max_size=3))
def test_whatever_a_text_holds_it_is_one_cell_with_that_text(texts: list[str]) -> None:
    markdown = page.table([""] * len(texts), [[page.text(value) for value in texts]])
    assert cells(markdown) == [" ".join(value.split()) for value in texts]


@pytest.mark.parametrize("value", ["a|b", "*a*", "[a](http://x)", "a`b`", "<b>a</b>", "a\\"])
def test_markup_in_a_text_is_shown_and_not_followed(value: str) -> None:
    assert cells(page.table(["", ""], [[page.text(value), "x"]])) == [value, "x"]


@pytest.mark.parametrize("value", ["plain", "a|b", "with `ticks`"])
def test_code_stays_what_it_is(value: str) -> None:
    assert cells(page.table(["", ""], [[page.code(value), "x"]])) == [value, "x"]


def test_a_page_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    made = page.html("# T\n\n![a](a.png)\n\n<script>x</script>\n\n| a | b |\n|---|---|\n| 1 | 2 |", "<T>", tmp_path)
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in made
    assert "<title>&lt;T&gt;</title>" in made
    assert "<script>" not in made
    assert "<td>2</td>" in made


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        page.write(tmp_path / "nowhere" / "card.html", "")
