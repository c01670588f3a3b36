from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import TrainingError
from cluster.store.storage import Storage
from jobs.spec import Spec
from jobs.sweep.record import DIVERGED, Importance, Kept, Swept, Trial, key
from jobs.training.batches import Encoded
from jobs.training.columns import Ragged
from jobs.training.loop import Work
from jobs.training.tokens import Rows

SPEC = Spec.model_validate({"name": "x", "base_model": "m", "data": {"source": "a.csv"}})
ROWS = Rows("store", "rows.parquet", "tokens/a.arrow", 2, Encoded(Ragged.of([]), None, 0))
JOB = Work(SPEC, ("no", "yes"), ROWS, ROWS, zero_stage=0, epochs=3)


def trial(name: str, loss: float | None, error: str = "") -> Trial:
    status = "failed" if error else "finished"
    return Trial(name, {"method.rank": 4}, loss, None, 1.0, status, error, 3, ((0.5, 0.9),))


def test_the_best_trial_is_the_one_of_least_loss_among_those_that_have_one() -> None:
    swept = Swept((trial("a", None, "broke"), trial("b", 0.4), trial("c", 0.0), trial("d", 0.2)))
    assert swept.best.id == "c"
    assert swept.to_dict()["best"]["values"] == {"method.rank": 4}
    assert [t["id"] for t in swept.to_dict()["trials"]] == ["a", "b", "c", "d"]


def test_a_sweep_in_which_all_failed_says_why() -> None:
    with pytest.raises(TrainingError, match="all 2 trials failed: broke"):
        _ = Swept((trial("a", None, "broke"), trial("b", None, "too"))).best


def test_a_sweep_is_the_same_after_it_was_written(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    swept = Swept((trial("a", None, "broke"), trial("b", 0.4)), Importance({"method.rank": 1.0}, 9, 1.0))
    storage.write_json("sweep.json", swept.to_dict())
    assert Swept.from_dict(storage.read_json("sweep.json")) == swept


def test_trials_with_an_outcome_are_known_and_others_may_be_tried_again(tmp_path: Path) -> None:
    kept = Kept.of(JOB, Storage(str(tmp_path)))
    assert kept.trials() == ()
    for made in (trial("a", 0.4), trial("b", None, "the node was lost"), trial("c", None, DIVERGED)):
        kept.write(made)
    (tmp_path / kept.place / "d.json.part").write_text("{")  # what a kill leaves of a write
    assert [t.id for t in kept.trials()] == ["a", "c"]
    assert kept.trials()[0] == trial("a", 0.4)


@pytest.mark.parametrize(
    "changes",
    [
        {"training.learning_rate": 0.5},
        {"base_model": "n"},
        {"method.rank": 4},
        {"sweep.epochs": 3},
        {"sweep.share": 0.5},
        {"sweep.scheduler": "none"},
        {"sweep.search": {"method.rank": {"choice": [4]}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_trial_of_something_else_is_not_known(changes) -> None:
    assert key(replace(JOB, spec=SPEC.with_values(changes))) != key(JOB)


def test_other_rows_make_other_trials() -> None:
    assert key(replace(JOB, train=replace(ROWS, file="tokens/b.arrow"))) != key(JOB)
    assert key(replace(JOB, validation=ROWS.only([1]))) != key(JOB)


def test_a_larger_sweep_goes_on_from_a_smaller_one() -> None:
    changes = {"sweep.trials": 50, "sweep.algorithm": "tpe", "sweep.concurrent": 1, "monitoring.window": 300}
    assert key(replace(JOB, spec=SPEC.with_values(changes))) == key(JOB)


@pytest.mark.parametrize(
    ("losses", "epochs", "loss"),
    [
        (((0.5, 3.0), (1.0, 2.0), (2.0, 1.0)), 1.0, 2.0),
        (((0.5, 3.0), (1.25, 2.0)), 1.0, 2.0),
        (((0.5, 3.0),), 1.0, None),
        (((1.0, float("inf")),), 1.0, None),
    ],
)
def test_a_loss_is_taken_at_the_first_report_that_is_as_far(losses, epochs, loss) -> None:
    assert replace(trial("a", 0.4), losses=losses).loss_after(epochs) == loss
