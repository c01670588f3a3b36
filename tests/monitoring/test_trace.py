from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import NotFoundError, UserError
from cluster.store.registry import ModelVersion
from cluster.store.tracking import Tracker
from jobs.data import preparation
from jobs.data.dataset import DatasetVersion
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import show, trace
from monitoring.journal import BEGUN, DONE, Journal
from serve.log.predictions import Feedback, Prediction, feedback_log, new_id, prediction_log

MORNING, EVENING = (datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in (6, 18))


def published(place: Place, spec: Spec, data: DatasetVersion, folder: Path, job: str | None) -> ModelVersion:
    """As `publish` registers one, with the manifest alone in its folder."""
    named = {"name": data.name, "version": data.version}
    made = {"dataset": named, "base_model": spec.base_model, "code": "c0de", "job": job, "run": "r"}
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(made))
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:
        source = run.log_folder(folder, "model")
    parent = {"parent": "1"} if job else {}
    return place.registry.register(spec.name, run.id, source, {"dataset": data.version, "spec": spec.hash, **parent})


def answered(place: Place, version: int, at: datetime, **changed: Any) -> Prediction:
    empty = np.zeros(2, np.float32)
    made = Prediction(new_id("tiny", version), at, "tiny", version, "a fine day", "positive", 0.9, {}, empty)
    prediction_log(place.storage).append([made.to_row() | changed])
    return made


@pytest.fixture
def data(spec: Spec, place: Place) -> tuple[DatasetVersion, DatasetVersion]:
    """One version, and one made from it and from feedback."""
    old = preparation.prepare(spec, place.storage)
    rows = pd.DataFrame({"input": [f"warm road {i}" for i in range(20)], "label": "positive"})
    return old, preparation.extend(spec, place.storage, old, rows)


@pytest.fixture
def line(spec: Spec, place: Place, data: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> list[ModelVersion]:
    """Version 1 made by hand; version 2 by a job that a decision started, promoted."""
    old, new = data
    made = [published(place, spec, old, tmp_path / "1", None), published(place, spec, new, tmp_path / "2", "job-1-4")]
    journal = Journal(place.storage)
    decided = {"version": 1, "number": 4, "action": "retrain", "reasons": ["3/6 columns drifted"]}
    journal.write("tiny", "decision", DONE, "1-4", decided)
    journal.write("tiny", "retrain", BEGUN, "1-4", {"submission_id": "job-1-4", "workers": 2})
    journal.write("tiny", "verdict", DONE, "2", {"promote": True, "reasons": ["better"]})
    return made


def test_an_answer_leads_to_all_that_is_behind_it(place, spec, data, line):
    made = answered(place, 2, EVENING)
    found = trace.prediction(made.prediction_id, place)
    assert (found.at, found.input, found.label, found.true) == (EVENING, "a fine day", "positive", None)
    behind = found.origin
    assert (behind.version.version, behind.version.run) == (2, line[1].run)
    assert (behind.spec, behind.code, behind.job) == (spec.hash, "c0de", "job-1-4")
    assert (behind.data, behind.line) == (data[1], (1,))
    assert "3/6 columns drifted" in behind.causes[0]
    text = show.traced(found)
    for said in (
        "tiny version 2 ['challenger']",
        "job-1-4",
        data[1].version,
        "c0de",
        spec.hash,
        "retrain, 3/6",
        "version 1",
    ):
        assert said in text


def test_every_parent_is_told_with_its_dataset(place, data, line):
    (parent,) = trace.origin(line[1], place).parents
    assert (parent.version, parent.data) == (1, data[0])
    text = trace.parents([parent])
    for said in ("version 1", f"tiny/{data[0].version}", str(data[0].size("train")), data[0].source[:20]):
        assert said in text
    assert trace.parents(trace.origin(line[0], place).parents) == ""


def test_a_parent_whose_data_is_gone_hides_nothing_else(place, data, line):
    (Path(place.settings.storage) / data[0].place / "manifest.json").unlink()
    (parent,) = trace.origin(line[1], place).parents
    assert (parent.version, parent.data) == (1, None)
    assert "gone" in trace.parents([parent])


def test_the_label_that_came_in_last_counts(place, line):
    made = answered(place, 1, MORNING, input="long " * 100)
    for at, label in ((EVENING, "negative"), (MORNING, "positive")):
        feedback_log(place.storage).append([Feedback(made.prediction_id, at, "tiny", label).to_row()])
    found = trace.prediction(made.prediction_id, place)
    assert (found.true, found.origin.job, found.origin.line) == ("negative", None, ())
    text = show.traced(found)
    assert "true label: negative" in text
    assert "none: a command was run by hand" in text
    assert max(map(len, text.splitlines())) < 130


def test_data_leads_to_every_version_that_has_it_in_its_line(place, data, line):
    old, new = data
    answered(place, 1, MORNING)
    answered(place, 2, EVENING)
    answered(place, 2, MORNING)
    found = trace.uses(f"tiny/{old.version}", place)
    assert [(u.version.version, u.data, u.answers, u.first, u.last) for u in found] == [
        (1, old, 1, MORNING, MORNING),
        (2, new, 2, MORNING, EVENING),
    ]
    assert [use.version.version for use in trace.uses(new.version[:8], place)] == [2]
    assert "tiny 2" in show.uses(found)


def test_the_verb_answers_in_json(place, data, line, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", place.settings.storage)
    made = answered(place, 2, EVENING)
    one = json.loads(CliRunner().invoke(rehone.app, ["trace", made.prediction_id, "--json"]).stdout)
    assert (one["at"], one["origin"]["data"]["version"]) == ("2026-03-01T18:00:00Z", data[1].version)
    many = json.loads(CliRunner().invoke(rehone.app, ["trace", "--dataset", data[0].version, "--json"]).stdout)
    assert [use["answers"] for use in many] == [0, 1]


def test_data_that_nothing_was_trained_on_says_so(place, data):
    assert show.uses(trace.uses(data[0].version, place)) == "no model version was trained on it"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("hello", UserError, "'hello' is no prediction id"),
        (f"tiny.1.{'0' * 22}", NotFoundError, "is not in the prediction log"),
    ],
)
def test_what_is_not_known_is_one_line(place, given, error, said):
    with pytest.raises(error, match=said):
        trace.prediction(given, place)


def test_the_verb_prints_an_answer_with_its_line(place, data, line, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", place.settings.storage)
    made = answered(place, 2, EVENING)
    text = CliRunner().invoke(rehone.app, ["trace", made.prediction_id]).stdout
    assert text.index(made.prediction_id) < text.index("3/6 columns drifted") < text.index("the versions before it")
    assert f"tiny/{data[0].version}" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["hello"], "is no prediction id"),
        ([f"tiny.1.{'0' * 22}"], "from its server's spool"),
        (["--dataset", "tiny/ffff"], "tiny/ffff: is no dataset version"),
        (["--dataset", "tiny/ffff", "hello"], "needs either a prediction id or --dataset"),
        ([], "needs either a prediction id or --dataset"),
    ],
)
def test_a_mistake_exits_with_2(place, monkeypatch, given, said):
    monkeypatch.setenv("REHONE_STORAGE", place.settings.storage)
    error = CliRunner().invoke(rehone.app, ["trace", *given]).exception
    assert getattr(error, "exit_code", None) == 2
    assert said in str(error)
    assert "\n" not in str(error)


def test_an_answer_of_a_version_that_is_gone_is_one_line(place):
    made = answered(place, 7, MORNING)
    with pytest.raises(NotFoundError, match="tiny"):
        trace.prediction(made.prediction_id, place)
