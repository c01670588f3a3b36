from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from typer.testing import CliRunner

import rehone
from cluster.settings import Settings
from jobs.pipeline import Place
from jobs.spec import MonitoringSpec
from monitoring import controller, upkeep
from monitoring.drift import reports
from monitoring.journal import TIDIED, Entry, Journal
from monitoring.windows import labelled, next_window
from serve.log.predictions import prediction_log

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
    assert set(empty) == {"predictions", "feedback", "observations", "journal", "reports"}
    assert {made["before"] for made in empty.values()} == {0}
    fill(storage, 3)
    assert "predictions" in CliRunner().invoke(rehone.app, ["tidy", "--keep-days", "100000"]).stdout


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN + timedelta(days=8)

    def __call__(self) -> datetime:
        return self.now


def kept(storage, clock: Clock, holder: str = "here", **keys: float) -> upkeep.Upkeep:
    return upkeep.Upkeep(MODEL, MonitoringSpec(**keys), storage, holder, clock)


def tidied(storage) -> list[Entry]:
    return Journal(storage).entries(MODEL, TIDIED)


def test_the_watch_tidies_once_a_day_whoever_watches(storage, capfd):
    fill(storage)
    clock = Clock()
    here, there = kept(storage, clock), kept(storage, clock, "there")
    for _ in range(3):
        here()
        there()
        clock.now += timedelta(hours=1)
    (done,) = tidied(storage)
    assert (done.body["predictions"]["after"], done.body["predictions"]["deleted"]) == (2, 0)
    assert capfd.readouterr().err.count("tidied the prediction log and its reports") == 1
    clock.now += timedelta(hours=21)
    there()
    here()
    kept(storage, clock, "begun anew")()
    assert len(tidied(storage)) == 2
    clock.now += timedelta(hours=25)
    here()
    assert len(tidied(storage)) == 3


def test_it_deletes_what_the_spec_says_of_its_own_model_alone(storage):
    fill(storage)
    another = [row | {"model": "another"} for row in prediction_log(storage).read().to_pylist()]
    for row in another:
        prediction_log(storage).append([row])
    kept(storage, Clock(), keep_days=7.0)()
    rows = prediction_log(storage).read(columns=["model", "day"]).to_pylist()
    assert {row["day"] for row in rows if row["model"] == MODEL} == {"2026-03-02"}
    assert sum(row["model"] == "another" for row in rows) == len(another)
    assert len(
        DeltaTable(prediction_log(storage).url).file_uris(file_pruning_predicate=[("model", "=", "another")])
    ) == len(another)
    assert tidied(storage)[0].body["predictions"]["deleted"] > 0


@pytest.mark.parametrize("of_all", [True, False])
def test_reports_of_old_windows_go_and_what_was_seen_stays(storage, of_all):
    clock = Clock()
    for model in (MODEL, "another"):
        for key, age in (("1-1", 9), ("1-2", 1)):
            clock.now = BEGAN - timedelta(days=age)
            Journal(storage, clock).write(model, "window", "done", key, {"drifted": True})
            for end in (".html", "-summary.html"):
                storage.write_bytes(f"drift/{model}/{key}{end}", b"...")
    storage.write_bytes(f"{reports.WORKSPACE}/metadata.json", b"{}")
    if of_all:
        made = upkeep.tidy(storage, BEGAN, keep_days=7)["reports"]
        assert (made.before, made.after, made.removed) == (8, 4, 4)
    else:
        clock.now = BEGAN
        kept(storage, clock, keep_days=7.0)()
        assert len(storage.list("drift/another")) == 4
    assert storage.list(f"drift/{MODEL}") == ["1-2-summary.html", "1-2.html"]
    assert storage.list(reports.WORKSPACE) == ["metadata.json"]
    assert len(Journal(storage).entries(MODEL, "window")) == 2


def test_it_is_switched_off(storage):
    fill(storage, 2)
    kept(storage, Clock(), tidy_hours=0)()
    assert tidied(storage) == []


def test_what_fails_is_said_and_tried_again_the_next_day(storage, monkeypatch, capfd):
    fill(storage, 2)
    clock = Clock()
    watching = kept(storage, clock)
    with monkeypatch.context() as busy:
        busy.setattr(upkeep, "tidy", lambda *_: (_ for _ in ()).throw(CommitFailedError("a writer came first")))
        watching()
    assert "could not be tidied: a writer came first; again in 24 h" in capfd.readouterr().err
    watching()
    assert tidied(storage) == []
    clock.now += timedelta(hours=25)
    watching()
    assert len(tidied(storage)) == 1


def test_the_watch_of_a_spec_tidies(storage, spec):
    fill(storage, 2)
    watch = controller.bound(
        spec.model_copy(update={"name": MODEL}),
        Place.from_settings(Settings(storage=storage.root)),
        SimpleNamespace(launch=None, status=None),
    )
    assert watch.tidy is not None
    watch.tidy()
    assert len(tidied(storage)) == 1
