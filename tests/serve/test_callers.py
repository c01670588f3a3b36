from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import rehone
from cluster.errors import NotFoundError, UserError
from cluster.store.storage import Storage
from serve.http import callers
from serve.http.callers import Callers


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def test_a_key_is_found_by_its_secret_alone(storage):
    key, secret = callers.create(storage, "shop", ("m",), 1)
    found = Callers(storage, 1).find(secret)
    assert found == key
    assert found.may_ask("m")
    assert not found.may_ask("n")
    for wrong in (
        "",
        "rhn_",
        secret[:-1],
        secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        secret.replace(key.id, "0" * 12),
    ):
        assert Callers(storage, 1).find(wrong) is None


def test_what_is_kept_does_not_hold_the_secret(storage):
    _, secret = callers.create(storage, "shop")
    (name,) = storage.list("keys")
    text = storage.read_bytes(f"keys/{name}").decode()
    assert secret not in text
    assert secret.split("_", 2)[2] not in text  # the random part, which may hold underscores of its own


def test_an_expired_key_is_nobodys(storage):
    _, secret = callers.create(storage, "shop", days=1)
    later = datetime.now(UTC) + timedelta(days=1, seconds=1)
    assert Callers(storage, 1, lambda: later).find(secret) is None


def test_new_and_revoked_keys_are_seen_while_it_runs(storage):
    known = Callers(storage, 0.01)
    key, secret = callers.create(storage, "shop")
    assert known.find(secret) is None
    known.look()
    assert known.find(secret) == key
    callers.revoke(storage, key.id)
    known.look()
    assert known.find(secret) is None
    with pytest.raises(NotFoundError, match="no key has the id"):
        callers.revoke(storage, key.id)


def test_a_key_is_read_once_however_often_a_server_looks(storage, monkeypatch):
    callers.create(storage, "shop")
    known, read = Callers(storage, 60), []
    monkeypatch.setattr(type(storage), "read_json", lambda self, path: read.append(path))
    known.look()
    assert read == []


def test_a_storage_that_is_gone_leaves_the_keys_known_last(storage, monkeypatch):
    _, secret = callers.create(storage, "shop")
    known = Callers(storage, 0.001)
    looked = []

    def gone(*_: object):
        looked.append(1)
        raise OSError("gone")

    monkeypatch.setattr(callers, "listed", gone)
    known.start()
    while not looked:
        pass
    known.stop()
    assert known.find(secret) is not None


@given(st.text())
def test_any_text_is_a_key_or_none(text):
    assert callers._KEY.fullmatch(text) is None or text.startswith("rhn_")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101, "/etc"])
def test_a_name_is_one_short_line(storage, name):
    with pytest.raises(UserError, match="is no name of a key"):
        callers.create(storage, name)
    assert storage.list("keys") == []


def test_the_verbs(storage, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", storage.root)

    def ask(*words: str) -> str:
        return CliRunner().invoke(rehone.app, ["keys", *words]).stdout

    made = json.loads(ask("create", "shop", "--model", "m", "--days", "2", "--json"))
    assert Callers(storage, 1).find(made["key"]).models == ("m",)
    text = ask("list")
    assert made["id"] in text
    assert made["key"] not in text
    assert "digest" not in ask("list", "--json")
    assert "shop: revoked" in ask("revoke", made["id"])
    assert ask("list").strip() == "no keys"
