"""The page to label a queue in a browser: one file beside the CSV, without a network, that saves that CSV filled in.

`page.html` is the page; `html` puts a queue into it as JSON, which its script reads. What people chose stays in
the browser's storage by model and prediction id: a queue that is written again finds what was chosen for its rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from cluster.errors import UserError

_SLOT = "__QUEUE__"
_OURS = b'<meta name="generator" content="rehone label">'
_HEAD = 512  # bytes of a page in which that stands


def path(queue: Path) -> Path:
    """Where the page of a queue lies."""
    return queue.with_suffix(".html")


def html(queue: str, labels: Sequence[str], name: str, model: str, version: int, *, images: bool) -> str:
    """A page that stands alone. `queue` is the CSV as text, whose last column is empty, `name` the file's name."""
    columns, *rows = csv.reader(io.StringIO(queue, newline=""))
    made = {
        "model": model,
        "version": version,
        "file": name,
        "images": images,
        "labels": list(labels),
        "columns": columns,
        "rows": rows,
    }
    # Without a `<` nothing in a text can end the element or begin another.
    data = json.dumps(made).replace("<", "\\u003c")
    return files(__package__).joinpath("page.html").read_text(encoding="utf-8").replace(_SLOT, data, 1)


def require_ours(page: Path) -> None:
    """Raises UserError where something else than such a page is in its place."""
    if not page.exists():
        return
    head = b""
    if page.is_file():
        with page.open("rb") as file:
            head = file.read(_HEAD)
    if _OURS not in head:
        mend = "name another file for the queue: its page is written beside it"
        raise UserError("exists already and is no page of a label queue", where=str(page), mend=mend)
