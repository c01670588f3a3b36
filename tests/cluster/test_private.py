"""The user's own folder is used only where nobody else may be in it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.settings import Settings
from cluster.store import private


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The temporary folder of all users."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_it_is_this_users_alone_whatever_the_umask(shared: Path) -> None:
    before = os.umask(0)
    try:
        made = private.folder()
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert made.parent == shared
    assert private.folder() == made


def test_a_folder_that_others_may_write_in_is_refused(shared: Path) -> None:
    private.folder().chmod(0o777)
    with pytest.raises(UserError, match=r"rehone-\d+: is to be a folder of your own"):
        private.folder()


def test_a_folder_of_somebody_else_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = private.folder(), os.getuid() + 1
    made.rename(made.with_name(f"rehone-{other}"))
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(UserError, match="is to be a folder of your own"):
        private.folder()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_that_somebody_has_put_there_is_refused(shared: Path, tmp_path: Path, there: bool) -> None:
    place, elsewhere = private.folder(), tmp_path / "elsewhere"
    place.rmdir()
    if there:
        elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)
    with pytest.raises(UserError, match="is to be a folder of your own"):
        private.folder()


def test_spools_beside_an_object_store_are_in_it(shared: Path) -> None:
    assert Settings(storage="s3://bucket").spool_root == private.folder() / "spool"
    private.folder().chmod(0o755)
    with pytest.raises(UserError, match="mode 700"):
        _ = Settings(storage="s3://bucket").spool_root
    assert Settings(storage="s3://bucket", spool="/var/spool/rehone").spool_root == Path("/var/spool/rehone")
