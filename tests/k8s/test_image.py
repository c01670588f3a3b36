"""The Dockerfile: linted, and everything it copies is there and let through. No engine is at hand: nothing is built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from .schemas import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINTER = Path(sys.executable).with_name("hadolint")


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run([LINTER, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_linter_speaks_when_something_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:latest\nRUN apt-get install curl\n")
    assert subprocess.run([LINTER, wrong], capture_output=True, check=False).returncode == 1


def test_what_is_copied_is_there_and_not_ignored() -> None:
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert copied == let
    assert all((ROOT / name).exists() for name in copied)


def test_it_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"
