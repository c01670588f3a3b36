from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.store.storage import Storage
from monitoring.journal import BEGUN, DONE, FAILED, Journal

AT = datetime(2026, 3, 1, tzinfo=UTC)


def test_nothing_was_ever_written(storage):
    assert Journal(storage).entries("moods") == []


def test_a_row_is_written_once(storage):
    journal = Journal(storage, lambda: AT)
    assert journal.write("moods", "window", DONE, "1-1", {"rows": 250, "columns": [{"name": "embedding"}]})
    assert not journal.write("moods", "window", DONE, "1-1", {"rows": 7})
    (entry,) = Journal(storage).entries("moods")
    assert (entry.at, entry.kind, entry.state, entry.key) == (AT, "window", "done", "1-1")
    assert entry.body == {"rows": 250, "columns": [{"name": "embedding"}]}


def test_entries_come_oldest_first_and_by_kind(storage):
    ticks = iter(range(100))
    journal = Journal(storage, lambda: AT + timedelta(seconds=next(ticks)))
    for kind, key in (("window", "1"), ("decision", "1"), ("window", "2")):
        journal.write("moods", kind, DONE, key, {})
    journal.write("other", "window", DONE, "1", {})
    assert [(e.kind, e.key) for e in journal.entries("moods")] == [("window", "1"), ("decision", "1"), ("window", "2")]
    assert [e.key for e in journal.entries("moods", "window")] == ["1", "2"]


def test_what_was_begun_stays_open_until_it_ends_or_fails(storage):
    journal = Journal(storage, lambda: AT)
    for key, end in (("1", DONE), ("2", FAILED), ("3", None)):
        journal.write("moods", "retrain", BEGUN, key, {})
        if end:
            journal.write("moods", "retrain", end, key, {})
    journal.write("moods", "window", DONE, "3", {})
    assert [e.key for e in journal.unfinished("moods")] == ["3"]
    assert journal.unfinished("moods", "window") == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([BEGUN, DONE, FAILED])), max_size=8))
@settings(max_examples=10, deadline=None)
def test_repeating_what_was_written_changes_nothing(tmp_path_factory, acts):
    storage = Storage(str(tmp_path_factory.mktemp("store")))
    journal = Journal(storage, lambda: AT)
    for key, state in acts:
        journal.write("moods", "retrain", state, key, {})
    before = journal.entries("moods")
    assert not any(journal.write("moods", "retrain", state, key, {}) for key, state in acts)
    assert journal.entries("moods") == before
    assert {(e.key, e.state) for e in before} == set(acts)
    assert len(before) == len(set(acts))
