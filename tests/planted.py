"""Where a secret that a test has planted is: every file under a folder, also what is packed or encoded in it."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq


def files(*roots: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file."""
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()


def holders(secret: str, contents: Iterable[tuple[str, bytes]]) -> set[str]:
    """Names of those that hold it."""
    sought = secret.encode()
    return {name for name, content in contents if any(sought in text for text in readings(content))}


def readings(content: bytes) -> Iterator[bytes]:
    """A file as it is and as its format says: the rows of Parquet and SQLite, what is in a zip file or under gzip."""
    yield content
    if content.startswith(b"PAR1") and content.endswith(b"PAR1"):
        yield repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
    elif content.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(":memory:")) as database:
            # A snapshot in write-ahead mode cannot be opened from memory; rollback mode reads the same pages.
            database.deserialize(content[:18] + b"\x01\x01" + content[20:])
            yield "\n".join(database.iterdump()).encode()
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from readings(archive.read(name))
    elif content.startswith(b"\x1f\x8b"):
        yield from readings(gzip.decompress(content))
