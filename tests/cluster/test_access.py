from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.nodes import access


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def test_a_new_token_is_readable_by_its_owner_only_and_is_found_again(home: dict[str, str]) -> None:
    assert access.kept_token(home) is None
    made = access.ensure_token(home)
    assert made == Path(home["HOME"]) / ".ray" / "auth_token"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert access.token(home) == made.read_text()
    assert len(made.read_text()) == 64


def test_a_token_that_is_there_stays(home: dict[str, str]) -> None:
    access.ensure_token(home)
    before = access.token(home)
    assert access.ensure_token(home) is None
    assert access.token(home) == before
    assert access.ensure_token(home | {access.TOKEN: "mine"}) is None


def test_the_order_is_rays_own(home: dict[str, str], tmp_path: Path) -> None:
    access.ensure_token(home)
    (tmp_path / "other").write_text("from a named file\n")
    named = home | {access.TOKEN_PATH: str(tmp_path / "other")}
    assert access.token(named) == "from a named file"
    assert access.token(named | {access.TOKEN: "direct"}) == "direct"
    assert access.token(named | {access.MODE: "disabled"}) is None


def test_a_path_that_leads_nowhere_is_said(home: dict[str, str]) -> None:
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH=/no/such: no such file"):
        access.token(home | {access.TOKEN_PATH: "/no/such"})


def test_without_a_token_no_header_is_sent() -> None:
    assert access.bearer(None) == {}
    assert access.bearer("t") == {"Authorization": "Bearer t"}


WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@given(WORD, WORD, WORD)
def test_a_url_with_a_password_is_not_sent_and_others_are(user: str, password: str, host: str) -> None:
    values = {
        "A": f"postgresql://{user}:{password}@{host}/db",
        "B": f"http://{host}:5000/",
        "C": f"s3://{host}/{user}@{password}",
        "D": f"http://{user}@{host}",
        "E": f"/mnt/{user}:{password}@{host}",
    }
    assert access.sendable(values).keys() == {"B", "C", "D", "E"}
