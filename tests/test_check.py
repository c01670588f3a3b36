"""Ten broken specs through the real command: one clear line each, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tiny

ONE_CLASS = [row for row in tiny.rows(80) if row["label"] == "positive"]


def broken(tmp_path: Path, base_model: Path, change: dict[str, Any], rows: list[dict[str, str]] | None) -> Path:
    data = tmp_path / "data.csv"
    if rows == []:
        data.write_text("text,label,document\n")
    elif rows is not None:
        tiny.write_csv(data, rows)
    tree = tiny.tree(data, base_model)
    for key, value in change.items():
        part, _, name = key.partition(".")
        if name:
            tree[part] = {**tree.get(part, {}), name: value}
        else:
            tree[part] = value
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rehone", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("change", "rows", "said"),
    [
        ({"trainign": {"epochs": 1}}, tiny.rows(40), "unknown key 'trainign', did you mean 'training'?"),
        ({"training.epochs": "many"}, tiny.rows(40), "training.epochs: input should be a valid integer"),
        ({}, None, "data.csv: no such file"),
        ({"data.text": "txt"}, tiny.rows(40), "data.text: no column 'txt' (did you mean 'text'?)"),
        ({"data.labels": ["positive", "neutral"]}, tiny.rows(40), "'negative'"),
        ({"training.global_batch_size": 33}, tiny.rows(40), "global_batch_size 33 is no multiple of"),
        ({"evaluation": {"metric": "bleu"}}, tiny.rows(40), "'bleu' is none of accuracy, macro_f1"),
        ({"data.split": {"by": "group"}}, tiny.rows(40), "split.by: group needs data.group"),
        ({}, [], "has no rows"),
        ({"data.labels": None}, ONE_CLASS, "has only the label 'positive'"),
    ],
    ids=[
        "unknown-key",
        "wrong-type",
        "missing-file",
        "unknown-column",
        "unknown-label",
        "batch",
        "metric",
        "split",
        "empty",
        "one-class",
    ],
)
def test_a_broken_spec_gets_one_line(tmp_path: Path, base_model: Path, change, rows, said) -> None:
    done = run("check", str(broken(tmp_path, base_model, change, rows)))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_good_one_is_fine(tmp_path: Path, base_model: Path) -> None:
    done = run("check", str(broken(tmp_path, base_model, {}, tiny.rows(40))), "--set", "training.learning_rate=2e-4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is fine: 40 rows" in done.stdout
