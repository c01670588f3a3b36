from __future__ import annotations

from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from monitoring import history
from monitoring.journal import BEGUN, DECISION, DONE, RETRAIN, VERDICT, Journal


def version(number: int, parent: int | None = None) -> ModelVersion:
    tags = {} if parent is None else {"parent": str(parent)}
    return ModelVersion("tiny", number, f"run{number}", "", tags, (), 0.0)


def test_the_line_of_parents_goes_to_the_first() -> None:
    versions = [version(1), version(2, 1), version(3), version(4, 2)]
    assert history.line(versions[3], versions) == (2, 1)
    assert history.line(versions[0], versions) == ()


def test_what_led_to_a_version_is_its_own_job_and_no_other(tmp_path) -> None:
    journal = Journal(Storage(str(tmp_path)))
    for key, number in (("1-5", 2), ("1-9", 3)):
        journal.write(
            "tiny", DECISION, DONE, key, {"version": 1, "number": 5, "action": "retrain", "reasons": ["drift"]}
        )
        journal.write("tiny", RETRAIN, BEGUN, key, {"submission_id": f"tiny-retrain-{key}"})
        journal.write("tiny", VERDICT, DONE, str(number), {"promote": number == 3, "reasons": []})
        journal.write("tiny", RETRAIN, DONE, key, {"submission_id": f"tiny-retrain-{key}"})
    journal.write("tiny", "promotion", BEGUN, "3-1", {"version": 3})
    journal.write("tiny", "promotion", DONE, "3-1", {"version": 3})
    found = history.causes(journal.entries("tiny"), 3, "tiny-retrain-1-9")
    assert [(e.kind, e.state, e.key) for e in found] == [
        (DECISION, DONE, "1-9"),
        (RETRAIN, BEGUN, "1-9"),
        (VERDICT, DONE, "3"),
        (RETRAIN, DONE, "1-9"),
        ("promotion", DONE, "3-1"),
    ]
    by_hand = history.causes(journal.entries("tiny"), 2, None)
    assert [(e.kind, e.key) for e in by_hand] == [(VERDICT, "2")]
