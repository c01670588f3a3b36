"""Markdown: tables with text that is safe in them, and one HTML page with its pictures inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from cluster.errors import UserError

_ACTIVE = re.compile(r"[\\`*\[\]<>|&~]|(?<!\w)_|_(?!\w)")

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1f2430}}
h1, h2, h3 {{line-height: 1.2}} h2 {{margin-top: 2.2rem; border-bottom: 1px solid #e3e6ec; padding-bottom: .3rem}}
table {{border-collapse: collapse; margin: .8rem 0; display: block; overflow-x: auto}}
td, th {{padding: .25rem 1.2rem .25rem 0; text-align: left; border-bottom: 1px solid #e3e6ec; vertical-align: top}}
th {{font-weight: 600; white-space: nowrap}} code {{background: #f2f4f8; padding: .1rem .3rem; border-radius: .2rem}}
img {{max-width: 100%; max-height: 23rem; height: auto; vertical-align: top}}
thead:not(:has(th:not(:empty))) {{display: none}}
p {{max-width: 48rem; overflow-wrap: anywhere}} p:has(img) {{max-width: none}}
</style></head><body>
{body}</body></html>
"""


def text(value: object) -> str:
    """One line of plain text that Markdown leaves as it is."""
    return _ACTIVE.sub(r"\\\g<0>", " ".join(str(value).split()))


def code(value: object) -> str:
    """One line in a code span."""
    line = " ".join(str(value).split()).replace("|", r"\|")
    return f"`` {line} ``" if "`" in line else f"`{line}`"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are Markdown, one line each, and numbers are the caller's to format. An empty head stays empty."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def html(markdown: str, title: str, folder: Path) -> str:
    """A page that stands alone: pictures, named relative to `folder`, are inside. HTML in it is shown as text."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(markdown)
    for token in (child for block in tokens for child in block.children or () if child.type == "image"):
        token.attrSet("src", _inside(folder / str(token.attrGet("src"))))
    return _PAGE.format(title=escape(title), body=renderer.renderer.render(tokens, renderer.options, {}))


def write(path: Path, page: str) -> None:
    """Raises UserError when the page cannot be written there."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from None


def _inside(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
