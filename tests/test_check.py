"""Broken specs through the command line's own entry point: one clear line each, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import rehone
from tests import tiny

ONE_CLASS = [row for row in tiny.rows(80) if row["label"] == "positive"]


def broken(tmp_path: Path, base_model: Path, change: dict[str, Any], rows: list[dict[str, str]] | None) -> Path:
    data = tmp_path / "data.csv"
    if rows == []:
        data.write_text("input,label,document\n")
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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """(exit code, stdout, stderr) of `rehone ARGUMENTS`, in this process: the imports take seconds."""

    def ran(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["rehone", *arguments])
        with pytest.raises(SystemExit) as ended:
            rehone.main()
        return ended.value.code, *capsys.readouterr()

    return ran


@pytest.mark.parametrize(
    ("change", "rows", "said"),
    [
        ({"trainign": {"epochs": 1}}, tiny.rows(40), "unknown key 'trainign', did you mean 'training'?"),
        ({"training.epochs": "many"}, tiny.rows(40), "training.epochs: input should be a valid integer"),
        ({}, None, "data.csv: no such file"),
        ({"data.input": "inptu"}, tiny.rows(40), "data.input: no column 'inptu' (did you mean 'input'?)"),
        ({"data.labels": ["positive", "neutral"]}, tiny.rows(40), "'negative'"),
        ({"training.global_batch_size": 33}, tiny.rows(40), "global_batch_size 33 is no multiple of"),
        ({"evaluation": {"metric": "bleu"}}, tiny.rows(40), "'bleu' is none of accuracy, macro_f1"),
        ({"data.split": {"by": "group"}}, tiny.rows(40), "split.by: group needs data.group"),
        ({}, [], "has no rows"),
        ({"data.labels": None}, ONE_CLASS, "has only the label 'positive'"),
        (
            {"evaluation.anchor": "/no/such/anchor.csv"},
            tiny.rows(40),
            "evaluation.anchor /no/such/anchor.csv: no such file",
        ),
        ({"training.max_length": 4096}, tiny.rows(40), "training.max_length 4096: is more than the base model's"),
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
        "anchor",
        "max-length",
    ],
)
def test_a_broken_spec_gets_one_line(tmp_path: Path, base_model: Path, run, change, rows, said) -> None:
    code, out, err = run("check", str(broken(tmp_path, base_model, change, rows)))
    assert (code, out) == (2, ""), err
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_good_one_is_fine(tmp_path: Path, base_model: Path, run) -> None:
    path = broken(tmp_path, base_model, {}, tiny.rows(40))
    code, out, err = run("check", str(path), "--set", "training.learning_rate=2e-4")
    assert (code, err) == (0, "")
    assert "is fine: 40 rows" in out


def test_a_process_of_its_own_says_the_same(tmp_path: Path, base_model: Path) -> None:
    path = broken(tmp_path, base_model, {"data.input": "inptu"}, tiny.rows(40))
    done = subprocess.run([sys.executable, "-m", "rehone", "check", str(path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr
