from __future__ import annotations

from jobs.models import provenance

THEN = {
    "code": "abc",
    "packages": {"python": "3.11.1", "torch": "2.12.0", "gone": "1"},
    "machine": {"threads": 2, "accelerator": "none"},
    "job": None,
}


def test_every_difference_is_named_once_and_nothing_else() -> None:
    now = {
        "code": "abd",
        "packages": {"python": "3.11.1", "torch": "2.13.0", "came": "2"},
        "machine": {"threads": 4, "accelerator": "none"},
        "job": "other",
    }
    assert provenance.differences(THEN, now) == (
        "code abc -> abd",
        "came none -> 2",
        "gone 1 -> none",
        "torch 2.12.0 -> 2.13.0",
        "threads 2 -> 4",
    )
    assert provenance.differences(THEN, THEN) == ()


def test_code_that_was_not_committed_is_not_taken_for_the_same() -> None:
    then = THEN | {"code": "abc+"}
    assert provenance.differences(then, then) == ("code abc+ had changes that are in no commit",)


def test_what_is_here_says_code_packages_machine_and_job(monkeypatch) -> None:
    monkeypatch.setenv("REHONE_JOB", "tiny-retrain-1-2")
    made = provenance.provenance()
    assert made["job"] == "tiny-retrain-1-2"
    assert made["packages"]["torch"].startswith("2.")
    assert made["machine"]["threads"] >= 1
    assert [line for line in provenance.differences(made, provenance.provenance()) if "no commit" not in line] == []
