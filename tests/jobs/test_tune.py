from __future__ import annotations

from pathlib import Path

import pytest

from cluster.store.tracking import Tracker
from jobs import pipeline, tune
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep import stage
from jobs.sweep.record import Importance, Kept
from jobs.sweep.stage import Ended, Stage
from jobs.training.loop import Work
from jobs.tune import Swept, Trial

SEARCH = {"method.rank": {"choice": [2, 4, 8, 16]}}
SPEC = Spec.model_validate(
    {"name": "x", "base_model": "m", "data": {"source": "a.csv"}, "sweep": {"epochs": 4, "search": SEARCH}}
)
POINT = {"method.rank": 4}


def reports(*losses: float) -> list[dict[str, float]]:
    return [
        {"epoch": at + 1.0, "step": 5 * (at + 1), "validation_loss": loss, "validation_accuracy": 0.7}
        for at, loss in enumerate(losses)
    ]


def test_asha_goes_by_what_trials_of_before_did() -> None:
    known = [Trial(str(at), POINT, 0.2, None, 4.0, "finished", "", 20, ((1.0, 0.1 * at),)) for at in range(1, 5)]
    for losses, told in ((0.05, "CONTINUE"), (0.45, "STOP")):
        asha = tune.scheduler(SPEC.with_values({"sweep.scheduler": "asha"}), known)
        trial = type("New", (), {"trial_id": "new"})()
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, {"epoch": 1.0, tune.METRIC: losses}) == told


def test_what_ends_is_kept_at_once_and_only_what_is_missing_runs(place: Place) -> None:
    made = SPEC.with_values({"sweep.scheduler": "none", "sweep.algorithm": "grid"})
    kept, asked = Kept(place.storage, "sweeps/x"), []

    def train(of: Stage, ended: Ended) -> None:
        asked.append((of.until, of.trials))
        for _ in range(2):  # then it dies, or all have ended
            ended(stage.outcome(made, of.points(), reports(0.5, 0.4, 0.3, 0.2), ""))

    job = Work(made, (), None, None, zero_stage=0, epochs=4)
    first = tune._at_once(job, kept, (), train)
    assert kept.trials() == tuple(sorted(first, key=lambda trial: trial.id))
    whole = tune._at_once(job, kept, first, train)
    assert {trial.values["method.rank"] for trial in whole} == {2, 4, 8, 16}
    assert len(kept.trials()) == len(whole) == 4
    assert tune._at_once(job, kept, whole, train) == whole
    assert asked == [(4, 4), (4, 2)]


@pytest.mark.parametrize("name", ["none", "halving"])
def test_without_asha_nobody_is_stopped_in_the_middle(name: str) -> None:
    free = tune.scheduler(SPEC.with_values({"sweep.scheduler": name}), [])
    assert free.on_trial_result(None, None, {"epoch": 1.0, tune.METRIC: 9.0}) == "CONTINUE"


def test_the_table_and_the_picture_of_what_mattered_are_kept_with_a_run(place: Place) -> None:
    trials = (stage.outcome(SPEC, POINT, reports(0.5, 0.4), ""), stage.outcome(SPEC, {"method.rank": 8}, [], "broke"))
    with Tracker(place.settings, "x").run("sweep", {}, {}) as run:
        tune.log(Swept(trials, Importance({"method.rank": 1.0}, 9, 1.0)), run)
        assert run.history("trial_validation_loss") == [(0, 0.4)]
    folder = Path(run.artifact_uri.removeprefix("file://"))
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "sweep-importance.png"}
    assert '"broke"' in (folder / "sweep.json").read_text()


def test_a_training_belongs_to_the_last_sweep_when_it_has_the_best_values(place: Place) -> None:
    assert pipeline._sweep_behind(SPEC, place) is None
    swept = Swept(
        (stage.outcome(SPEC, POINT, reports(0.4), ""), stage.outcome(SPEC, {"method.rank": 8}, reports(0.5), ""))
    )
    place.storage.write_json(f"sweeps/{SPEC.name}.json", swept.to_dict())
    tuned = SPEC.with_values(pipeline.tuned(SPEC, place))
    assert tuned.method.rank == 4
    assert pipeline._sweep_behind(tuned, place) == swept
    assert pipeline._sweep_behind(SPEC, place) is None
