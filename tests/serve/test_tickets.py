from __future__ import annotations

from pathlib import Path

import pytest

from cluster.store.storage import Storage
from serve.versions.tickets import Tickets


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_a_ticket_is_for_one_version_of_one_model_for_ten_minutes(storage: Storage) -> None:
    ticket = Tickets(storage).issue("moods", 3, now=1000.5)
    door = Tickets(storage)  # of another process, by what is in the storage root
    assert [door.version("moods", ticket, now) for now in (1000.5, 1599.9, 1600.0)] == [3, 3, None]
    assert door.version("digits", ticket, 1001) is None


@pytest.mark.parametrize("where", ["version", "until", "signature"])
def test_nobody_makes_one_up_or_changes_one(storage: Storage, where: str) -> None:
    door = Tickets(storage)
    version, until, signature = door.issue("moods", 3, now=1000).split(".")
    parts = {"version": version, "until": until, "signature": signature}
    parts[where] = {"version": "4", "until": "9999999999", "signature": "0" * 64}[where]
    assert door.version("moods", ".".join(parts.values()), 1001) is None


@pytest.mark.parametrize("given", ["", "3", "3.1600.zz", "٣.1600." + "0" * 64, "-1.1600." + "0" * 64, "x" * 10_000])
def test_what_is_no_ticket_asks_nothing_of_the_store(storage: Storage, given: str) -> None:
    assert Tickets(storage).version("moods", given, 1000) is None
    assert not storage.exists("serving/secret")


def test_another_storage_root_has_another_secret(storage: Storage, tmp_path: Path) -> None:
    ticket = Tickets(storage).issue("moods", 3, now=1000)
    assert Tickets(Storage(str(tmp_path / "other"))).version("moods", ticket, 1001) is None
