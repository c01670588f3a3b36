"""The command line: help, exit codes, JSON. What the verbs do is tested where they live and in end_to_end/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rehone
from jobs import specfile
from jobs.spec import Spec

VERBS = [
    "init",
    "check",
    "schema",
    "prepare",
    "tune",
    "train",
    "evaluate",
    "models",
    "promote",
    "rollback",
    "serve",
    "predict",
    "watch",
    "retrain",
    "status",
    "demo",
]


def invoke(*arguments: str):
    return CliRunner().invoke(rehone.app, list(arguments))


@pytest.fixture(autouse=True)
def _storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHONE_STORAGE", str(tmp_path / "store"))


@pytest.fixture
def spec_file(spec: Spec, tmp_path: Path) -> str:
    (tmp_path / "spec.yaml").write_text(specfile.dump(spec))
    return str(tmp_path / "spec.yaml")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_json(verb: str) -> None:
    said = invoke(verb, "--help").stdout
    assert f"Example: rehone {verb}" in " ".join(said.split())
    assert "--json" in said


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, rehone; print([m for m in ('ray', 'torch', 'mlflow', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_slip_on_the_command_line_exits_with_2() -> None:
    assert invoke("train").exit_code == 2
    assert invoke("train", "x.yaml", "--bogus").exit_code == 2
    assert invoke("nonsense").exit_code == 2


def test_init_writes_a_valid_spec_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert invoke("init", str(path)).exit_code == 0
    assert specfile.load(path).name == "my-project"
    again = invoke("init", str(path))
    assert "exists already" in str(again.exception)


def test_schema_is_json_schema() -> None:
    assert json.loads(invoke("schema").stdout)["properties"]["training"]


def test_prepare_says_what_it_made(spec_file: str) -> None:
    made = json.loads(invoke("prepare", spec_file, "--json").stdout)
    assert made["labels"] == ["negative", "positive"]
    text = invoke("prepare", spec_file).stdout
    assert f"dataset tiny/{made['version']}" in text
    assert "dropped: nothing" in text


def test_before_anything_is_trained(spec_file: str) -> None:
    assert "no model is registered yet" in invoke("models").stdout
    for arguments in (["serve", spec_file], ["rollback", "tiny"], ["evaluate", spec_file], ["retrain", spec_file]):
        error = invoke(*arguments).exception
        assert getattr(error, "exit_code", None) == 2, (arguments, error)
        assert "tiny" in str(error)
    found = json.loads(invoke("status", spec_file, "--json").stdout)
    assert (found["versions"], found["decisions"], found["serving"]) == ([], [], None)


@pytest.mark.parametrize("verb", ["predict", "watch"])
def test_a_server_that_does_not_run_is_said(spec_file: str, verb: str) -> None:
    error = invoke(verb, spec_file, *(["hello"] if verb == "predict" else [])).exception
    assert "is not served from this storage root" in str(error)
