"""The page on scale against the script that reckoned it: every table in it is what the kept unit costs give."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def test_the_tables_on_scale_are_the_scripts() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "bench/scale.py", "--costs", "docs/scale.json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(blocks) == 3
    printed = lines(done.stdout)
    for block in blocks:
        assert lines(block) in printed
