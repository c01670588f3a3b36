from __future__ import annotations

from datetime import timedelta

from monitoring.judges import observed
from monitoring.judges.canary import DROP, judge
from serve.log.predictions import Kind, Observation, observations
from tests.monitoring.fakes import BEGAN, MODEL, feedback

from .test_canary import CANARY, CHAMPION, SPEC


def seen(number: int, version: int, *, model: str = MODEL, fault: str | None = None) -> Observation:
    return Observation(
        prediction_id=f"{model}.{version}.{number:05d}",
        at=BEGAN + timedelta(minutes=number),
        model=model,
        version=version,
        kind=Kind.answer,
        key=f"{version}-{number}",
        label=None if fault else "pos",
        fault=fault,
        batch=f"{version}-{number}",
        batch_rows=1,
        seconds=None if fault else 0.01,
    )


def test_nothing_was_ever_observed(storage):
    rows = observed.since(storage, MODEL, CHAMPION, CANARY, BEGAN)
    assert rows.empty
    assert judge(rows, CANARY, None, SPEC).trial is None


def test_both_versions_since_a_time_with_the_labels_that_came_last(storage):
    made = [seen(i, version) for i in range(30) for version in (CHAMPION, CANARY, 9)] + [seen(20, CANARY, model="x")]
    observations(storage).append([one.to_row() for one in made])
    feedback(storage, {"moods.1.00015": "neg", "moods.2.00016": "neg", "moods.1.00001": "neg"}, at=BEGAN)
    feedback(storage, {"moods.2.00016": "pos", "moods.2.00017": "pos"}, at=BEGAN + timedelta(days=1))
    rows = observed.since(storage, MODEL, CHAMPION, CANARY, BEGAN + timedelta(minutes=15))
    assert len(rows) == 30
    assert set(rows["version"]) == {CHAMPION, CANARY}
    assert rows["at"].is_monotonic_increasing
    assert rows["at"].dt.day.nunique() == 1
    assert rows.set_index("prediction_id")["true"].dropna().to_dict() == {
        "moods.2.00016": "pos",
        "moods.2.00017": "pos",
    }


def test_what_is_read_can_be_judged(storage):
    made = [seen(i, CHAMPION) for i in range(40)] + [seen(i, CANARY, fault="ValueError: no") for i in range(40)]
    observations(storage).append([one.to_row() for one in made])
    found = judge(observed.since(storage, MODEL, CHAMPION, CANARY, BEGAN), CANARY, None, SPEC)
    assert found.action == DROP
    assert found.reasons[0].startswith("100.0% of 40 batches failed")
