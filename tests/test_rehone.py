"""The command line: help, exit codes, JSON. What the verbs do is tested where they live and in end_to_end/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import UserError
from jobs import specfile
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny

VERBS = [
    "init",
    "check",
    "plan",
    "schema",
    "prepare",
    "audit",
    "tune",
    "train",
    "register",
    "ui",
    "pause",
    "resume",
    "evaluate",
    "card",
    "reproduce",
    "models",
    "promote",
    "rollback",
    "retire",
    "serve",
    "predict",
    "explain",
    "watch",
    "notify",
    "retrain",
    "status",
    "trace",
    "predictions",
    "label",
    "drift",
    "tidy",
    "backup",
    "restore",
    "keys create",
    "keys list",
    "keys revoke",
    "backtest",
    "demo",
    "submit",
    "data list",
    "data show",
    "data diff",
    "jobs list",
    "jobs logs",
    "jobs stop",
    "jobs wait",
    "cluster up",
    "cluster down",
    "cluster certificate",
    "cluster status",
    "cluster doctor",
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
    said = invoke(*verb.split(), "--help").stdout
    assert f"Example: rehone {verb}" in " ".join(said.split())
    assert "--json" in said


@pytest.mark.parametrize("verb", ["list", "show", "diff"])
def test_so_has_every_verb_of_data(verb: str) -> None:
    said = invoke("data", verb, "--help").stdout
    assert f"Example: rehone data {verb}" in " ".join(said.split())
    assert "--json" in said


def test_dataset_versions_are_listed_shown_and_compared(spec_file: str) -> None:
    assert "no dataset version is kept yet" in invoke("data", "list").stdout
    one, two = (
        json.loads(invoke("prepare", spec_file, "--set", f"training.seed={seed}", "--json").stdout) for seed in (0, 1)
    )
    assert [v["version"] for v in json.loads(invoke("data", "list", "--json").stdout)] == [
        one["version"],
        two["version"],
    ]
    shown = invoke("data", "show", one["version"]).stdout
    assert "no run has used it" in shown
    assert "intact" in shown
    compared = invoke("data", "diff", one["version"], two["version"], "--rows", "1").stdout
    assert "0 added, 0 removed, 0 relabelled" in compared
    moved = json.loads(invoke("data", "diff", one["version"], two["version"], "--json").stdout)["moved"]
    assert f"{len(moved)} moved" in compared
    assert getattr(invoke("data", "show", "nothing").exception, "exit_code", None) == 2


def test_a_plan_that_cannot_fit_is_refused(spec_file: str) -> None:
    assert json.loads(invoke("plan", spec_file, "--json").stdout)["rows"] == 112
    far = invoke("plan", spec_file, "--set", "scaling.workers=100000", "--set", "training.global_batch_size=800000")
    assert "does not fit" in far.stdout
    assert getattr(far.exception, "exit_code", None) == 2


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, rehone; print([m for m in ('ray', 'torch', 'mlflow', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_most_verbs_are_made_of_waits_for_no_model_library() -> None:
    imported = "jobs.pipeline, monitoring.controller, monitoring.promotion, monitoring.show, serve.http.app"
    slow = ("torch", "transformers", "peft", "mlflow", "sklearn", "scipy", "evidently", "ray", "datasets")
    code = f"import sys, {imported}; print([name for name in {slow} if name in sys.modules])"
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


def test_prepare_takes_corrections_from_where_the_user_is(
    spec_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "hand: made #1"
    here.mkdir()
    monkeypatch.chdir(here)
    first = (tmp_path / "data.csv").read_text().splitlines()[1].split(",")[0]
    Path("fixes.csv").write_text(f"row,input,label\n1,{first},\n")
    made = json.loads(invoke("prepare", spec_file, "--corrections", "fixes.csv", "--json").stdout)
    assert made["dropped"] == {"dropped by a correction": 1}
    Path("fixes.csv").write_text(f"row,input,label\n1,{first},bad\n")
    error = invoke("prepare", spec_file, "--corrections", "fixes.csv").exception
    assert "row 1 column 'label': 'bad' is no label; labels are negative, positive" in str(error)


def test_a_leak_is_reported_and_exits_with_2(spec_file: str, tmp_path: Path) -> None:
    rows = [
        {**row, "side": "test" if i % 4 == 3 else ("validation" if i % 4 else "train")}
        for i, row in enumerate(tiny.rows(80))
    ]
    rows += [{**rows[0], "side": "test"}]
    tiny.write_csv(tmp_path / "data.csv", rows)
    given = invoke("audit", spec_file, "--json", "--set", "data.split={by: column, column: side}")
    assert getattr(given.exception, "exit_code", None) == 2
    assert "1 rows leak between splits" in str(given.exception)
    (leak,) = [f for f in json.loads(given.stdout)["findings"] if f["severity"] == "error"]
    assert (leak["kind"], leak["rows"]) == ("leak", [81])


def test_prepare_says_what_it_made(spec_file: str) -> None:
    made = json.loads(invoke("prepare", spec_file, "--json").stdout)
    assert made["labels"] == ["negative", "positive"]
    text = invoke("prepare", spec_file).stdout
    assert f"dataset tiny/{made['version']}" in text
    assert "dropped: nothing" in text


def test_before_anything_is_trained(spec_file: str) -> None:
    assert "no model is registered yet" in invoke("models").stdout
    verbs = [[verb, spec_file] for verb in ("serve", "evaluate", "card", "retrain")]
    for arguments in (*verbs, ["rollback", "tiny"], ["reproduce", "tiny", "1"], ["reproduce", spec_file, "champion"]):
        error = invoke(*arguments).exception
        assert getattr(error, "exit_code", None) == 2, (arguments, error)
        assert "tiny" in str(error)
    found = json.loads(invoke("status", spec_file, "--json").stdout)
    assert (found["versions"], found["decisions"], found["serving"]) == ([], [], None)


@pytest.mark.parametrize("verb", ["predict", "watch"])
def test_a_server_that_does_not_run_is_said(spec_file: str, verb: str) -> None:
    error = invoke(verb, spec_file, *(["hello"] if verb == "predict" else [])).exception
    assert "is not served from this storage root" in str(error)


@pytest.mark.parametrize("verb", ["prepare", "audit", "tune", "train", "evaluate", "retrain", "reproduce"])
def test_every_long_verb_can_be_sent_to_a_cluster(verb: str) -> None:
    text = CliRunner().invoke(rehone.app, [verb, "--help"], env={"COLUMNS": "200"}).stdout
    assert "--address" in text
    assert "--detach" in text
    assert "--resources" in text


@pytest.mark.parametrize(
    ("values", "verb", "key"),
    [
        ({"serving.gpus": 0.5}, {"serves": True, "trains": False}, "serving.gpus"),
        ({"scaling.use_gpu": True}, {"serves": True, "trains": True}, "scaling.use_gpu"),  # `serve --watch`
        ({"scaling.use_gpu": True}, {}, "scaling.use_gpu"),
    ],
)
def test_a_verb_that_wants_a_gpu_says_so_before_ray_starts(
    spec: Spec,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, object],
    verb: dict[str, bool],
    key: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with (
        pytest.raises(UserError, match=rf"{key}: a GPU is wanted and this machine has none"),
        rehone._ray(spec.with_values(values), place, **verb),
    ):
        pass
