"""The label queue over real Delta tables: written, filled in, taken. No Ray."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rehone
from cluster.errors import DataError, NotFoundError, UserError
from jobs import specfile
from jobs.pipeline import Place
from monitoring.journal import BEGUN, DONE, RETRAIN, Journal
from monitoring.labels import queue as labels
from monitoring.windows import labelled, labels_of, labels_since, unlabelled
from serve.log.predictions import Prediction, feedback_log, new_id, prediction_log
from tests.monitoring.fakes import BEGAN, feedback, publish, sample

MODEL = "tiny"
KNOWN = ["negative", "positive"]


def logged(storage, rows: int, *, version: int = 1, texts: list[str] | None = None, seed: int = 0) -> list[str]:
    """Answers one second apart; the later, the surer. Oldest first."""
    rng = np.random.default_rng(seed)
    ids = []
    for i in range(rows):
        high = 0.5 + 0.5 * (i + 1) / (rows + 1)
        scores = {"negative": 1 - high, "positive": high}
        text, point = texts[i] if texts else f"text {i}", rng.normal(size=8).astype(np.float32)
        at = BEGAN + timedelta(seconds=i)
        ids.append(new_id(MODEL, version))
        made = Prediction(ids[-1], at, MODEL, version, text, "positive", high, scores, point)
        prediction_log(storage).append([made.to_row()])
    return ids


@pytest.fixture
def loop(storage, tmp_path) -> SimpleNamespace:
    """A place with a champion whose folder has its reference and labels."""
    registry = publish(tmp_path / "version", sample(60, np.random.default_rng(1)))
    (tmp_path / "version" / "manifest.json").write_text(json.dumps({"labels": KNOWN}))
    return SimpleNamespace(storage=storage, registry=registry)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "queue.csv"


def read(file) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def fill(file, given: dict[str, str]) -> None:
    rows = [{**row, "label": given.get(row["prediction_id"], row["label"])} for row in read(file)]
    pd.DataFrame(rows).to_csv(file, index=False)


def test_unlabelled_are_the_latest_answers_of_a_version_that_nobody_has_labelled(storage):
    ids = logged(storage, 6)
    logged(storage, 2, version=2)
    feedback(storage, {ids[4]: "negative"}, at=BEGAN, model=MODEL)
    found = unlabelled(storage, MODEL, 1, 3)
    assert list(found["prediction_id"]) == [ids[2], ids[3], ids[5]]
    assert set(found["scores"].iloc[0]) == set(KNOWN)
    assert len(found["embedding"].iloc[0]) == 8
    assert unlabelled(storage, MODEL, 9, 3).empty


def test_labels_of_some_answers_are_the_last_ones(storage):
    ids = logged(storage, 3)
    for at, label in enumerate(("negative", "positive")):
        feedback(storage, {ids[0]: label}, at=BEGAN + timedelta(hours=at), model=MODEL)
    found = labels_of(storage, MODEL, [ids[0], ids[2], "nobody's"]).set_index("prediction_id")
    assert set(found.index) == {ids[0], ids[2]}
    assert found.loc[ids[0], "true"] == "positive"
    assert pd.isna(found.loc[ids[2], "true"])


def test_a_queue_has_what_a_person_needs_and_no_label(spec, loop, out):
    ids = logged(loop.storage, 30, texts=['=the, same\n"text" é'] * 20 + [f"text {i}" for i in range(10)])
    feedback(loop.storage, {ids[29]: "negative"}, at=BEGAN, model=MODEL)
    made = labels.queue(spec, loop, out, 8, 5000)
    assert made == labels.Queued(str(out), str(out.with_suffix(".html")), 1, 8, 29)
    rows = read(out)
    assert [list(row) for row in rows] == [list(labels.COLUMNS)] * 8
    assert {row["prediction_id"] for row in rows} < set(ids[:29])
    assert sum(row["input"].startswith("=the, same\n") for row in rows) == 1
    assert {row["label"] for row in rows} == {""}
    assert all(row["predicted"] == "positive" and 0.5 < float(row["confidence"]) < 1 for row in rows)
    assert all(row["why"].startswith("negative and positive are 0.") for row in rows)
    assert all("farther from the test rows than" in row["why"] for row in rows)
    assert any("stands for" in row["why"] for row in rows)
    assert "8 of 29 answers" in labels.queued(made)


def test_a_queue_nobody_has_begun_is_written_anew_and_a_filled_one_never(spec, loop, out):
    ids = logged(loop.storage, 5)
    labels.queue(spec, loop, out, 5, 5000)
    labels.queue(spec, loop, out, 3, 5000)
    assert len(read(out)) == 3
    fill(out, dict.fromkeys(ids, "negative"))
    before = out.read_bytes()
    with pytest.raises(UserError, match="3 labels are filled in") as error:
        labels.queue(spec, loop, out, 3, 5000)
    assert error.value.exit_code == 2
    assert out.read_bytes() == before


def test_another_file_is_left_alone(spec, loop, out):
    logged(loop.storage, 2)
    out.write_text("my,own\n1,2\n")
    with pytest.raises(UserError, match="no label queue"):
        labels.queue(spec, loop, out, 3, 5000)
    assert out.read_text() == "my,own\n1,2\n"
    with pytest.raises(UserError, match="is no file"):
        labels.queue(spec, loop, out.parent, 3, 5000)
    with pytest.raises(UserError, match="is where the page"):
        labels.queue(spec, loop, out.with_suffix(".html"), 3, 5000)
    with pytest.raises(UserError, match="cannot be written"):
        labels.queue(spec, loop, out.parent / "nowhere" / "queue.csv", 3, 5000)


def test_nothing_to_label_is_one_line(spec, loop, out):
    ids = logged(loop.storage, 2)
    feedback(loop.storage, dict.fromkeys(ids, "negative"), at=BEGAN, model=MODEL)
    with pytest.raises(NotFoundError, match="no prediction of version 1"):
        labels.queue(spec, loop, out, 3, 5000)
    assert not out.exists()


def test_answers_land_once_and_empty_ones_are_counted(spec, loop, out):
    ids = logged(loop.storage, 6)
    labels.queue(spec, loop, out, 6, 5000)
    fill(out, {ids[0]: "negative", ids[1]: " positive "})
    assert labels.answer(spec, loop, out) == labels.Taken(2, 0, 4, 2, spec.monitoring.min_labels)
    since = labelled(loop.storage, MODEL, 1)["labelled_at"].max().to_pydatetime()
    assert labels.answer(spec, loop, out) == labels.Taken(0, 2, 4, 2, spec.monitoring.min_labels)
    fill(out, {ids[2]: "positive"})
    assert labels.answer(spec, loop, out).taken == 1
    # What was there already is not dated anew: a retraining would count it again.
    assert labels_since(loop.storage, MODEL, since) == 1
    rows = labelled(loop.storage, MODEL, 1)
    assert dict(zip(rows["prediction_id"], rows["true"], strict=True)) == {
        ids[0]: "negative",
        ids[1]: "positive",
        ids[2]: "positive",
    }
    assert feedback_log(loop.storage).read().num_rows == 3


def test_a_label_that_is_changed_and_changed_back_counts_each_time(spec, loop, out):
    (key,) = logged(loop.storage, 1)
    labels.queue(spec, loop, out, 1, 5000)
    for label in ("negative", "positive", "negative"):
        fill(out, {key: label})
        assert labels.answer(spec, loop, out).taken == 1
        assert labelled(loop.storage, MODEL, 1)["true"].tolist() == [label]


def test_the_same_file_taken_at_the_same_time_lands_once(spec, loop, out, monkeypatch):
    """Both have read the log before either has written."""
    ids = logged(loop.storage, 3)
    labels.queue(spec, loop, out, 3, 5000)
    fill(out, dict.fromkeys(ids, "negative"))
    before = labels_of(loop.storage, MODEL, ids)
    monkeypatch.setattr(labels, "labels_of", lambda *_: before)
    assert labels.answer(spec, loop, out).taken == 3
    assert labels.answer(spec, loop, out).taken == 0
    assert feedback_log(loop.storage).read().num_rows == 3


def test_labels_that_a_retraining_has_used_do_not_wait(spec, loop, out):
    ids = logged(loop.storage, 4)
    feedback(loop.storage, {ids[0]: "negative"}, at=BEGAN, model=MODEL)
    journal = Journal(loop.storage)
    for state in (BEGUN, DONE):
        journal.write(MODEL, RETRAIN, state, "1-1", {"submission_id": "job"})
    labels.queue(spec, loop, out, 4, 5000)
    fill(out, {ids[1]: "negative"})
    made = labels.answer(spec.with_values({"monitoring.min_labels": 3}), loop, out)
    assert (made.waiting, made.needed) == (1, 3)
    assert "1 labels taken, 0 were there already, 2 rows have none; 1 wait for a retraining, 2 more are needed" in (
        labels.taken(made)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prediction_id,label\nID0,negative\nID1,neutral\n", "row 2 column 'label': 'neutral' is none of negative"),
        ("prediction_id,label\nID0,negative\nother.1.0,negative\n", "row 2 column 'prediction_id': 'other.1.0' is not"),
        ("prediction_id,label\nID0,negative\nID0,positive\n", "row 2 column 'prediction_id': .* is there twice"),
        ("prediction_id,label\n,\nID0\n", "row 1 column 'prediction_id': '' is not in the prediction log"),
        ("prediction_id,true\nID0,negative\n", "has no column label"),
        ("", "has no column prediction_id, label"),
        ("prediction_id,label\nID0,n\u00e9gative\n".encode("latin-1"), "0xe9 is not UTF-8"),
    ],
)
def test_a_file_with_a_fault_is_refused_whole(spec, loop, out, text, said):
    ids = logged(loop.storage, 2)
    raw = text if isinstance(text, bytes) else text.encode()
    for at, key in enumerate(ids):
        raw = raw.replace(f"ID{at}".encode(), key.encode())
    out.write_bytes(raw)
    with pytest.raises(DataError, match=said) as error:
        labels.answer(spec, loop, out)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert feedback_log(loop.storage).read().num_rows == 0


def test_the_verb_writes_and_takes_and_answers_in_json(spec, loop, out, tmp_path, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", str(tmp_path / "store"))
    monkeypatch.setattr(Place, "from_settings", lambda _: loop)
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    logged(loop.storage, 5)

    def invoke(*arguments: str):
        return CliRunner().invoke(rehone.app, ["label", str(file), *arguments])

    made = json.loads(invoke("--out", str(out), "--rows", "4", "--latest", "4", "--json").stdout)
    assert (made["rows"], made["candidates"]) == (4, 4)
    fill(out, {row["prediction_id"]: "negative" for row in read(out)})
    assert json.loads(invoke("--answers", str(out), "--json").stdout)["taken"] == 4
    assert "0 labels taken, 4 were there already" in invoke("--answers", str(out)).stdout
    for wrong in ([], ["--out", "a.csv", "--answers", "b.csv"]):
        assert "needs either --out or --answers" in str(invoke(*wrong).exception)
