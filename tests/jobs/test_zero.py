from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import Spec
from jobs.training import zero

MIB = 2**20


def spec(**training: object) -> Spec:
    base = {"name": "x", "base_model": "m", "data": {"source": "a.csv"}}
    scaling = {"workers": 4, "use_gpu": "offload" in training}
    return Spec.model_validate(base | {"scaling": scaling, "training": {"micro_batch_size": 8, **training}})


@pytest.mark.parametrize(
    ("mib", "stage"),
    # 1 GiB of weights, as much of gradients, twice as much of Adam's moments; half of the device counts.
    [(11_000, 0), (7_000, 1), (4_800, 2), (2_800, 3), (50, 3)],
)
def test_the_smallest_stage_that_fits_is_picked(mib: int, stage: int) -> None:
    weights = 1024 * MIB // 4
    made = zero.plan(spec(), parameters=weights, trainable=weights, device_bytes=mib * MIB)
    assert made.stage == stage
    assert "MiB" in made.reason


@pytest.mark.parametrize(
    ("precision", "expected"),
    # Per weight: 4 + 4 + 8, a copy of 4 from stage 1 on that stage 3 needs not; in bf16 2 + 2 + 8 and always a copy.
    [
        ("fp32", [16, 4 + 4 + 12 / 4, 4 + 4 / 4 + 12 / 4, (4 + 4 + 8) / 4]),
        ("bf16", [16, 2 + 2 + 12 / 4, 2 + 2 / 4 + 12 / 4, (2 + 2 + 12) / 4]),
    ],
)
def test_states_are_what_the_paper_and_deepspeed_say(precision: str, expected: list[float]) -> None:
    weights, size = 10**9, {"fp32": 4, "bf16": 2}[precision]
    for stage, per_weight in enumerate(expected):
        bucket = (zero.BUCKET if stage else 5 * 10**8) * size + (stage == 3) * zero.LIVE * size
        made = zero.states(stage, parameters=weights, trainable=weights, workers=4, precision=precision)
        assert made.total == pytest.approx(per_weight * weights + bucket)


@given(st.integers(1, 10**10), st.floats(0, 1), st.floats(0, 1), st.integers(2, 64), st.sampled_from(zero.STAGES))
def test_frozen_and_quantised_weights_and_more_workers_never_ask_for_more(
    parameters: int, share: float, quantised: float, workers: int, stage: int
) -> None:
    trainable = int(parameters * share)
    base = {"parameters": parameters, "trainable": trainable, "workers": workers}

    def total(**changes: int) -> int:
        return zero.states(stage, **base | changes).total

    assert total() <= total(trainable=parameters)
    assert total() >= total(quantised=int((parameters - trainable) * quantised))
    assert total() + 3 >= total(workers=workers + 1)  # three parts, each rounded


@given(*[st.integers(0, 10**12)] * 6, st.booleans())
def test_no_more_than_everything_is_held_at_once(
    weights: int, gathered: int, gradients: int, optimizer: int, bucket: int, activations: int, accumulating: bool
) -> None:
    made = zero.States(weights, gathered, gradients, optimizer, bucket)
    peak = made.peak(activations, accumulating=accumulating)
    assert max(made.total, weights + gathered + optimizer + activations) <= peak <= made.total + activations
    assert made.peak(activations, accumulating=False) <= peak


@pytest.mark.parametrize(
    ("training", "stage", "said"),
    [
        ({}, 0, "needs 5120 MiB of the 50000 MiB kept for model states"),
        ({"precision": "bf16"}, 1, "precision: bf16 begins with stage 1"),
        ({"offload": "optimizer"}, 1, "offload: optimizer begins with stage 1"),
        ({"offload": "parameters"}, 3, "offload: parameters begins with stage 3"),
    ],
)
def test_what_is_asked_for_says_where_the_stages_begin(training: dict[str, object], stage: int, said: str) -> None:
    weights = 1024 * MIB // 4
    made = zero.plan(spec(**training), parameters=weights, trainable=weights, device_bytes=100_000 * MIB)
    assert (made.stage, said in made.reason) == (stage, True), made.reason


def test_a_stage_says_what_the_one_below_it_would_need() -> None:
    weights = 1024 * MIB // 4
    made = zero.plan(spec(), parameters=weights, trainable=weights, device_bytes=4_800 * MIB)
    assert made.reason == "needs 2112 MiB of the 2400 MiB kept for model states, stage 1 2880 MiB"


@given(st.integers(1, 10**10), st.sampled_from(["optimizer", "parameters"]))
def test_what_is_offloaded_is_not_the_devices(weights: int, offload: str) -> None:
    stage = 3 if offload == "parameters" else 1
    size = {"parameters": weights, "trainable": weights, "workers": 4}
    here, away = zero.states(stage, **size), zero.states(stage, **size, offload=offload)
    assert (away.optimizer, away.weights) == (0, 0 if offload == "parameters" else here.weights)
    assert zero.config(spec(offload=offload), stage, 4)["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def test_a_named_stage_is_taken_as_it_is() -> None:
    assert zero.plan(spec(zero_stage=2), parameters=1, trainable=1, device_bytes=1) == zero.Plan(2, "named in the spec")


@given(st.integers(1, 10**10), st.floats(0, 1), st.integers(1, 10**12))
def test_more_memory_never_asks_for_a_higher_stage(parameters: int, share: float, memory: int) -> None:
    size = {"parameters": parameters, "trainable": int(parameters * share)}
    assert (
        zero.plan(spec(), **size, device_bytes=2 * memory).stage <= zero.plan(spec(), **size, device_bytes=memory).stage
    )


def test_the_batches_add_up() -> None:
    for workers in (1, 2, 4):
        made = zero.config(spec(global_batch_size=64), 2, workers)
        assert workers * made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] == 64
    assert made["zero_optimization"]["stage"] == 2
