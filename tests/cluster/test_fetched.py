"""What was fetched stays while it is used or was asked for last, and is what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.session import PROJECT
from cluster.store import fetched, private

HOLDER = """
import sys, tempfile
from cluster.store import fetched
tempfile.tempdir = sys.argv[1]
print(fetched.kept("g", sys.argv[2], 2, lambda part: part.mkdir(), lambda _: True), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine of its own, and a process that holds nothing on it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(fetched, "_holds", holds := {})
    yield tmp_path
    for held in holds.values():
        os.close(held)


class Store:
    def __init__(self) -> None:
        self.fetched: list[str] = []

    def get(self, name: str, keep: int = 2) -> Path:
        def fetch(part: Path) -> None:
            self.fetched.append(name)
            part.mkdir()
            (part / "weights").write_text(name)

        return fetched.kept("g", name, keep, fetch, lambda folder: (folder / "weights").read_text() == name)


def there() -> set[str]:
    return {path.name for path in (private.folder() / "fetched" / "g").iterdir()}


def let_go() -> None:
    """As at the end of this process."""
    for held in fetched._holds.values():
        os.close(held)
    fetched._holds.clear()


def test_what_was_asked_for_last_stays() -> None:
    store = Store()
    for name in ("1", "2", "1", "3"):
        store.get(name)
        let_go()
    assert there() == {"1", "3"}
    assert store.fetched == ["1", "2", "3"]


def test_what_this_process_has_asked_for_stays_a_while() -> None:
    store = Store()
    for name in "1234":
        store.get(name, keep=1)
    assert there() == {"1", "2", "3", "4"}
    store.get("5", keep=1)
    assert there() == {"2", "3", "4", "5"}
    assert len(fetched._holds) == 4


def test_what_another_process_uses_stays_until_it_ends(node: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(node), "theirs"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip().endswith("/theirs")
        store = Store()
        for name in "123":
            store.get(name)
            let_go()
        assert there() == {"2", "3", "theirs"}
        other.kill()
    store.get("4")
    assert there() == {"3", "4"}


def test_what_was_changed_on_the_machine_is_fetched_again() -> None:
    store = Store()
    (store.get("1") / "weights").write_text("another model")
    let_go()
    assert (store.get("1") / "weights").read_text() == "1"
    assert store.fetched == ["1", "1"]


def test_what_was_changed_in_the_store_is_not_used() -> None:
    with pytest.raises(ClusterError, match="1: what was fetched is not what was written"):
        fetched.kept("g", "1", 2, lambda part: part.mkdir(), lambda _: False)
    assert there() == set()


def test_what_a_killed_process_left_is_removed() -> None:
    store = Store()
    place = store.get("1").parent
    (place / "2.part").mkdir()
    (place / "2.part" / "weights").write_text("half")
    (place / "3.part").write_text("half")
    store.get("2")
    assert there() == {"1", "2"}


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    def made(folder: str, **files: str) -> str:
        (tmp_path / folder / "deep").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / folder / "deep" / name).write_text(text)
        return fetched.digest(tmp_path / folder)

    one = made("one", a="x", b="y")
    assert made("same", b="y", a="x") == one
    assert len({one, made("swapped", a="y", b="x"), made("named", a="x", c="y"), made("fewer", a="x")}) == 4
