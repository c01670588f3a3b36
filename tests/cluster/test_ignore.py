from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.submission import ignore


def make(folder: Path, **texts: str) -> Path:
    """Files by name, with `__` for `/`."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in ignore.files(folder)]


def test_ignored_files_stay_and_rehoneignore_has_the_last_word(tmp_path: Path) -> None:
    make(tmp_path, a="", b="", data__x="", data__y="", **{".gitignore": "data/\nb\n", ".rehoneignore": "!b\na\n"})
    assert names(tmp_path) == [".gitignore", ".rehoneignore", "b"]


def test_a_deeper_file_speaks_for_what_is_below_it(tmp_path: Path) -> None:
    make(tmp_path, x__log="", x__y__log="", log="")
    (tmp_path / ".gitignore").write_text("log\n")
    (tmp_path / "x" / ".gitignore").write_text("!log\n")
    assert names(tmp_path) == [".gitignore", "x/.gitignore", "x/log", "x/y/log"]


def test_the_enclosing_repository_counts_and_nothing_above_it(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "*\n"})
    repository = make(tmp_path / "repository", project__kept="", project__a__left="", project__b__left="")
    (repository / ".git").mkdir()
    (repository / ".gitignore").write_text("/project/a/\n")
    (repository / "project" / ".gitignore").write_text("/b/\n")
    assert names(repository / "project") == [".gitignore", "kept"]


def test_what_is_never_part_of_a_project(tmp_path: Path) -> None:
    make(tmp_path, **{".git__HEAD": "", ".venv__x": "", "__pycache__.pyc": "", "m.pyc": "", ".mypy_cache__x": ""})
    make(tmp_path, kept="")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_an_ignore_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        names(tmp_path)


PATTERN = st.sampled_from(["a", "b/", "*.c", "/a", "!a", "a/*", "**/b", "!a/b", "a/**", "# a", "", "?", "[ab]", "!*.c"])
FILES = ["a", "x.c", "d/a", "d/b/a", "d/x.c", "b/y.c", "e/f"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(PATTERN, max_size=4), st.lists(PATTERN, max_size=3))
def test_it_reads_patterns_as_git_does(tmp_path_factory, top: list[str], below: list[str]) -> None:
    folder = tmp_path_factory.mktemp("repository")
    for name in FILES:
        make(folder / "tree", **{name.replace("/", "__"): ""})
    tree = folder / "tree"
    (tree / ".gitignore").write_text("\n".join(top))
    (tree / "d" / ".gitignore").write_text("\n".join(below))
    listed = subprocess.run(
        [
            "git",
            "-c",
            "init.defaultBranch=m",
            "-c",
            "core.excludesFile=/dev/null",
            "ls-files",
            "-co",
            "--exclude-standard",
        ],
        cwd=_repository(tree),
        capture_output=True,
        text=True,
        check=True,
    )
    assert names(tree) == sorted(listed.stdout.split())


def _repository(tree: Path) -> Path:
    subprocess.run(["git", "init", "-q", "."], cwd=tree, check=True)
    return tree
