from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import zero
from jobs.spec import Spec

MIB = 2**20


def spec(**training: object) -> Spec:
    base = {"name": "x", "base_model": "m", "data": {"source": "a.csv"}, "training": training}
    return Spec.model_validate(base | {"scaling": {"workers": 4}, "training": {"micro_batch_size": 8, **training}})


@pytest.mark.parametrize(
    ("mib", "stage"),
    # 100 MiB of weights, as much of gradients, twice as much of Adam's moments; half of the device counts.
    [(800, 0), (600, 1), (400, 2), (220, 3), (50, 3)],
)
def test_the_smallest_stage_that_fits_is_picked(mib: int, stage: int) -> None:
    weights = 100 * MIB // 4
    made = zero.plan(spec(), parameters=weights, trainable=weights, device_bytes=mib * MIB)
    assert made.stage == stage
    assert "MiB" in made.reason


def test_a_named_stage_is_taken_as_it_is() -> None:
    assert zero.plan(spec(zero_stage=2), parameters=1, trainable=1, device_bytes=1) == zero.Plan(2, "named in the spec")


@given(st.integers(1, 10**10), st.floats(0, 1), st.integers(1, 10**12))
def test_more_memory_never_asks_for_a_higher_stage(parameters: int, share: float, memory: int) -> None:
    size = {"parameters": parameters, "trainable": int(parameters * share)}
    assert (
        zero.plan(spec(), **size, device_bytes=2 * memory).stage <= zero.plan(spec(), **size, device_bytes=memory).stage
    )


def test_the_batches_add_up() -> None:
    made = zero.config(spec(global_batch_size=64), 2)
    assert made["train_batch_size"] == 4 * made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"]
    assert made["zero_optimization"]["stage"] == 2
