from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.store.storage import Storage
from monitoring.windows import ENOUGH_LABELS, START, Position, accuracies, labelled, labels_since, next_window

from .fakes import BEGAN, MODEL, feedback, log, sample

RNG = np.random.default_rng(0)


def after(window) -> Position:
    return Position(window.number, window.end, window.rows["prediction_id"].iloc[-1])


def all_windows(storage, size, version=1):
    position, found = START, []
    while (window := next_window(storage, MODEL, version, size, position)) is not None:
        found.append(window)
        position = after(window)
    return found


def test_nothing_was_ever_logged(storage):
    assert next_window(storage, MODEL, 1, 5) is None
    assert labelled(storage, MODEL, None).empty
    assert labels_since(storage, MODEL, None) == 0


def test_a_window_waits_until_it_is_full(storage):
    log(storage, sample(9, RNG))
    assert next_window(storage, MODEL, 1, 10) is None
    log(storage, sample(1, RNG), start=9)
    window = next_window(storage, MODEL, 1, 10)
    assert (window.number, window.key, len(window.rows)) == (1, "1-1", 10)
    assert (window.start, window.end) == (BEGAN, BEGAN + timedelta(seconds=270))
    assert len(window.rows["embedding"].iloc[0]) == 8
    assert window.rows["true"].isna().all()
    assert window.measured.empty


def test_windows_follow_each_other_over_midnight_without_gap_or_overlap(storage):
    ids = log(storage, sample(47, RNG))
    windows = all_windows(storage, 10)
    assert [window.number for window in windows] == [1, 2, 3, 4]
    assert [key for window in windows for key in window.rows["prediction_id"]] == ids[:40]
    assert windows[0].start.day != windows[-1].end.day


@given(st.lists(st.integers(0, 3), min_size=1, max_size=25), st.integers(1, 6), st.lists(st.integers(1, 9), max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_is_in_exactly_one_window_whatever_its_time(tmp_path_factory, times, size, cuts):
    """Many rows of the same instant, landed in batches: order is (at, prediction_id)."""
    from serve.log.predictions import prediction_log

    storage = Storage(str(tmp_path_factory.mktemp("store")))
    rows = [
        {"prediction_id": f"{i:03d}", "at": BEGAN + timedelta(seconds=at), "day": f"{BEGAN:%Y-%m-%d}", "model": MODEL}
        | {"version": 1, "input": "x", "label": "pos", "confidence": 0.5, "scores": "{}", "embedding": [0.0]}
        for i, at in enumerate(times)
    ]
    while rows:
        batch, rows = rows[: (cuts or [9])[-1]], rows[(cuts or [9])[-1] :]
        prediction_log(storage).append(batch)
        cuts = cuts[:-1]
    seen = [key for window in all_windows(storage, size) for key in window.rows["prediction_id"]]
    expected = [f"{i:03d}" for _, i in sorted((at, i) for i, at in enumerate(times))]
    assert seen == expected[: len(times) // size * size]


def test_another_version_or_model_has_windows_of_its_own(storage):
    log(storage, sample(10, RNG))
    log(storage, sample(10, RNG), version=2, start=3)
    log(storage, sample(10, RNG), model="other")
    (window,) = all_windows(storage, 10, version=2)
    assert window.number == 1
    assert set(window.rows["prediction_id"].str[:8]) == {"moods.2."}


def test_rows_that_may_not_be_all_there_yet_are_left(storage):
    log(storage, sample(10, RNG))
    last = BEGAN + timedelta(seconds=270)
    assert next_window(storage, MODEL, 1, 10, before=last) is None
    assert next_window(storage, MODEL, 1, 10, before=last + timedelta(seconds=1)) is not None


def test_the_feedback_that_came_last_counts(storage):
    ids = log(storage, sample(4, RNG), labelled=2)
    later = BEGAN + timedelta(days=3)
    feedback(storage, {ids[0]: "second thoughts", ids[3]: "late"}, at=later)
    rows = labelled(storage, MODEL, 1)
    assert list(rows.columns) == ["prediction_id", "version", "input", "predicted", "true", "labelled_at"]
    assert dict(zip(rows["prediction_id"], rows["true"], strict=True)) == {
        ids[0]: "second thoughts",
        ids[1]: rows.set_index("prediction_id").loc[ids[1], "true"],
        ids[3]: "late",
    }
    assert labels_since(storage, MODEL, later - timedelta(seconds=1)) == 2
    assert labels_since(storage, MODEL, later) == 0


def test_labels_are_of_one_version_or_of_all(storage):
    log(storage, sample(5, RNG), labelled=3)
    log(storage, sample(5, RNG), version=2, labelled=2)
    assert len(labelled(storage, MODEL, 1)) == 3
    assert len(labelled(storage, MODEL, None)) == labels_since(storage, MODEL, None) == 5


def test_a_label_without_a_prediction_is_nobodys(storage):
    log(storage, sample(3, RNG))
    feedback(storage, {"moods.1.unknown": "pos"}, at=BEGAN)
    assert labels_since(storage, MODEL, None) == 0


@pytest.mark.parametrize("known", [ENOUGH_LABELS, ENOUGH_LABELS + 5])
def test_accuracy_is_measured_on_the_windows_own_labels(storage, known):
    log(storage, sample(60, RNG), labelled=60)
    ids = log(storage, sample(60, RNG), start=60, labelled=known)
    window = all_windows(storage, 60)[1]
    assert list(window.measured["prediction_id"]) == ids[:known]


def test_accuracy_is_measured_on_the_latest_labels_while_the_windows_own_are_too_few(storage):
    log(storage, sample(60, RNG), labelled=60)
    ids = log(storage, sample(60, RNG), start=60, labelled=ENOUGH_LABELS - 1)
    measured = all_windows(storage, 60)[1].measured
    assert len(measured) == 60
    assert set(ids[: ENOUGH_LABELS - 1]) < set(measured["prediction_id"])


def test_late_labels_count_into_their_own_window(storage):
    rows = sample(40, np.random.default_rng(0))
    ids = log(storage, rows)
    spans = [(w.version, w.start, w.end) for w in all_windows(storage, 20)]
    assert accuracies(storage, MODEL, []) == []
    assert accuracies(storage, MODEL, spans) == [(None, 0), (None, 0)]
    feedback(storage, dict(zip(ids[:10], rows["label"], strict=False)), at=BEGAN + timedelta(days=3))
    feedback(storage, dict.fromkeys(ids[20:], "pos"), at=BEGAN + timedelta(days=3))
    right = int((rows["label"][20:] == "pos").sum())
    assert accuracies(storage, MODEL, spans) == [(1.0, 10), (right / 20, 20)]
    assert accuracies(storage, MODEL, [(2, *spans[0][1:]), spans[0]]) == [(None, 0), (1.0, 10)]
    feedback(storage, dict.fromkeys(ids[:5], "neither"), at=BEGAN + timedelta(days=4))
    assert accuracies(storage, MODEL, spans)[0] == (0.5, 10)
