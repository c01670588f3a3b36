from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

import rehone
from monitoring import upkeep
from monitoring.journal import Journal
from monitoring.windows import labelled, next_window
from serve.predictions import prediction_log

from .fakes import BEGAN, MODEL, log, sample


def fill(storage, batches: int = 8) -> None:
    """Ten minutes before midnight and after it, as small a file a batch as servers write."""
    for batch in range(batches):
        log(storage, sample(10, np.random.default_rng(batch)), start=10 * batch, labelled=2)


def test_many_files_become_few_and_every_row_stays(storage):
    fill(storage)
    before = prediction_log(storage).read().sort_by("prediction_id")
    made = upkeep.tidy(storage, BEGAN + timedelta(days=1))["predictions"]
    assert made.before > made.after == 2  # a day each
    assert (made.deleted, made.removed) == (0, 0)  # readers may still have the old files
    assert prediction_log(storage).read().sort_by("prediction_id").equals(before)
    assert len(next_window(storage, MODEL, 1, 30).rows) == 30


def test_what_was_written_once_stays_so(storage):
    journal = Journal(storage)
    assert journal.write(MODEL, "window", "begun", "1-1", {})
    assert journal.write(MODEL, "window", "done", "1-1", {})
    upkeep.tidy(storage, BEGAN, keep_days=0)
    assert not journal.write(MODEL, "window", "begun", "1-1", {})
    assert len(journal.entries(MODEL)) == 2


def test_old_answers_go_and_labels_stay(storage):
    fill(storage)
    made = upkeep.tidy(storage, BEGAN + timedelta(days=8), keep_days=7)
    rows = prediction_log(storage).read(columns=["day"])["day"].to_pylist()
    assert set(rows) == {"2026-03-02"}
    assert made["predictions"].deleted == 80 - len(rows)
    assert made["feedback"].deleted == 0
    assert len(labelled(storage, MODEL, 1)) > 0


def test_files_that_nobody_can_read_any_more_are_removed(storage):
    fill(storage)
    table = prediction_log(storage)
    table.tidy()
    removed = table.tidy(unread=timedelta(0)).removed
    assert removed > 0
    assert len(list(Path(table.url).rglob("*.parquet"))) - len(list(Path(table.url).glob("_delta_log/*"))) <= 2
    assert table.read().num_rows == 80


def test_writers_go_on_while_it_tidies(storage):
    ended, written = threading.Event(), []

    def write() -> None:
        while not ended.is_set():
            assert Journal(storage).write(MODEL, "window", "begun", f"1-{len(written)}", {})
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    while len(written) < 5:
        pass
    for _ in range(3):
        upkeep.tidy(storage, BEGAN)
    ended.set()
    thread.join()
    assert len(Journal(storage).entries(MODEL)) == len(written)


def test_the_verb_and_a_store_with_nothing_in_it(storage, monkeypatch):
    monkeypatch.setenv("REHONE_STORAGE", storage.root)
    empty = json.loads(CliRunner().invoke(rehone.app, ["tidy", "--json"]).stdout)
    assert set(empty) == {"predictions", "feedback", "observations", "journal"}
    assert {made["before"] for made in empty.values()} == {0}
    fill(storage, 3)
    assert "predictions" in CliRunner().invoke(rehone.app, ["tidy", "--keep-days", "100000"]).stdout
