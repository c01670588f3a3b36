from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.settings import Settings
from jobs.plan import plan, show
from jobs.spec import Spec

GIB = 2**30


def past(spec: Spec, rate: float = 50.0, status: str = "FINISHED", **params: str) -> dict[str, Any]:
    run_id = f"run-{rate:g}"
    return {
        "id": run_id,
        "status": status,
        "metrics": {"rows_per_second": rate},
        "params": plan.params(spec) | params,
    }


def test_time_is_that_of_the_past_run_most_like_this_one(spec: Spec) -> None:
    runs = [past(spec, 10, workers="8"), past(spec, 20), past(spec, 30), past(spec, 40, base_model="other")]
    found = plan.duration(spec, 100, runs)
    assert found == plan.Duration(100 * spec.training.epochs / 20, 20, "run-20", ())
    assert plan.duration(spec, 100, [*runs[3:], runs[0]]).unlike == ("number of workers",)


def test_without_a_usable_past_run_no_time_is_told(spec: Spec) -> None:
    unusable = [past(spec, 10, status="FAILED"), {**past(spec), "metrics": {}}]
    assert plan.duration(spec, 100, unusable) is None


def test_a_plan_starts_and_writes_nothing(spec: Spec, tmp_path: Path) -> None:
    made = plan.make(spec, Settings(storage=str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()
    assert (made.rows, made.duration, made.cost, made.fits) == (112, None, None, True)
    assert {(n.method, n.stage) for n in made.needs} == {(m, s) for m in plan.METHODS for s in range(4)}
    said = show.plan(made)
    assert "112 training rows: under 1,000 LoRA" in said
    assert "no past run of this project" in said
    assert "QLoRA needs a GPU" in said


def test_what_does_not_fit_is_marked_with_what_would(spec: Spec, tmp_path: Path) -> None:
    made = plan.make(spec.with_values({"method.name": "full"}), Settings(storage=str(tmp_path / "store")))
    smallest = min((n for n in made.needs if n.method != "qlora"), key=lambda n: n.peak)
    tight = plan.Planned(**{**vars(made), "device_bytes": smallest.peak})
    assert not tight.fits
    assert "!" in show.plan(tight)
    assert show.mend(tight) == f"--set method.name={smallest.method} --set training.zero_stage={smallest.stage} would"
    assert "micro_batch_size" in show.mend(plan.Planned(**{**vars(made), "device_bytes": 1}))


def test_money_is_told_where_prices_are_known(spec: Spec, tmp_path: Path) -> None:
    made = plan.make(spec, Settings(storage=str(tmp_path / "store")))
    took = plan.Duration(7200, 50, "a" * 32, ("workers",))
    for settings, said in ((Settings(cpu_hour_price=0.5), "money: 4 CPU hours, 2"), (Settings(), "no price known")):
        cost = plan.energy.used(took.seconds, spec.scaling, settings)
        shown = show.plan(plan.Planned(**{**vars(made), "duration": took, "cost": cost}))
        assert "time: at most 2.0 h for 112 rows at 50.0 rows/s, as in run aaaaaaaa, which had another workers" in shown
        assert said in shown


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_less_is_held_in_4_bits(spec: Spec, precision: str) -> None:
    made = spec.with_values({"training.precision": precision})
    sizes = plan.Sizes(parameters=7 * 10**9, trainable=10**7, quantisable=6 * 10**9)
    lora, qlora = (plan.needs(made, method, sizes, 0)[0].states.weights for method in ("lora", "qlora"))
    width = 4 if precision == "fp32" else 2
    assert lora - qlora == pytest.approx(6 * 10**9 * (width - 0.516))
    assert qlora < 16 * GIB
