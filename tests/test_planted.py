"""The search for planted secrets finds them wherever the project can write them."""

from __future__ import annotations

import gzip
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from cluster.store.storage import Storage
from monitoring.journal import DECISION, DONE, Journal
from tests.planted import files, holders

SECRET = "planted-" + "77aa01"


def plain(folder: Path, text: str) -> None:
    (folder / "log").write_text(f"a line\n{text}\n")


def journal(folder: Path, text: str) -> None:
    Journal(Storage(str(folder))).write("m", DECISION, DONE, "1-1", {"reasons": [text] * 3})


def database(folder: Path, text: str) -> None:
    with closing(sqlite3.connect(folder / "x.db")) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE params (value TEXT)")
        made.execute("INSERT INTO params VALUES (?)", (text,))
        made.commit()


def package(folder: Path, text: str) -> None:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", text * 50)


def packed(folder: Path, text: str) -> None:
    (folder / "x.gz").write_bytes(gzip.compress(text.encode() * 50))


@pytest.mark.parametrize("plant", [plain, journal, database, package, packed])
def test_it_is_found(plant, tmp_path: Path) -> None:
    for name, text in (("with", SECRET), ("without", "harmless")):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, text)
    found = holders(SECRET, files(tmp_path))
    assert found
    assert all(name.startswith(str(tmp_path / "with")) for name in found)
