from __future__ import annotations

import pytest

from cluster.errors import TrainingError
from jobs.tune import Swept, Trial


def trial(name: str, loss: float | None, error: str = "") -> Trial:
    return Trial(name, {"method.rank": 4}, loss, None, 1.0, "failed" if error else "finished", error)


def test_the_best_trial_is_the_one_of_least_loss_among_those_that_have_one() -> None:
    swept = Swept((trial("a", None, "broke"), trial("b", 0.4), trial("c", 0.0), trial("d", 0.2)))
    assert swept.best.id == "c"
    assert swept.to_dict()["best"]["values"] == {"method.rank": 4}
    assert [t["id"] for t in swept.to_dict()["trials"]] == ["a", "b", "c", "d"]


def test_a_sweep_in_which_all_failed_says_why() -> None:
    with pytest.raises(TrainingError, match="all 2 trials failed: broke"):
        _ = Swept((trial("a", None, "broke"), trial("b", None, "too"))).best
