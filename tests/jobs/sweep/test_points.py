from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.spec import Spec
from jobs.sweep import points
from jobs.sweep.points import Points
from jobs.sweep.record import Trial

BASE = {"name": "x", "base_model": "m", "data": {"source": "a.csv"}}
RATES = st.floats(1e-6, 1).map(lambda rate: float(f"{rate:.3g}"))
SEARCH = st.fixed_dictionaries(
    {
        "training.learning_rate": st.fixed_dictionaries({"choice": st.lists(RATES, min_size=1, max_size=4)}),
        "method.rank": st.fixed_dictionaries({"choice": st.lists(st.integers(1, 9), min_size=1, max_size=4)}),
    },
    optional={"method.name": st.just({"choice": ["lora", "full"]})},
)


def spec(search: dict[str, Any], **sweep: Any) -> Spec:
    return Spec.model_validate(BASE | {"sweep": sweep | {"search": search}})


def ended(point: dict[str, Any], loss: float = 0.5, status: str = "finished") -> Trial:
    return Trial(points.name(point), point, loss, 0.5, 2.0, status, "", 4, ((1.0, loss), (2.0, loss)))


def take(of: Points, count: int) -> list[dict[str, Any]]:
    """As many points, each told an outcome before the next is asked for."""
    taken: list[dict[str, Any]] = []
    while len(taken) < count and (point := of.next()) is not None:
        taken.append(point)
        of.told(ended(point, loss=float(point.get("training.learning_rate", 1.0))))
    return taken


@given(SEARCH)
def test_a_grid_is_every_combination_once(search: dict[str, Any]) -> None:
    made = spec(search, algorithm="grid", trials=1)
    sizes = [len(set(wanted["choice"])) for wanted in search.values()]
    count = sizes[0] * sizes[1] * (sizes[2] if len(sizes) == 3 else 1)
    assert points.wanted(made) == count
    drawn = take(Points(made), 10_000)
    assert len({points.name(point) for point in drawn}) == len(drawn) == count
    for key, wanted in search.items():
        assert {point[key] for point in drawn} == set(wanted["choice"])


@pytest.mark.long
@settings(max_examples=20)
@given(SEARCH, st.sampled_from(["random", "tpe"]), st.integers(1, 8))
def test_no_point_comes_twice_and_a_small_space_is_used_up(search: dict[str, Any], algorithm: str, trials: int) -> None:
    made = spec(search, algorithm=algorithm, trials=trials)
    of = Points(made)
    drawn = take(of, points.wanted(made))
    assert len({points.name(point) for point in drawn}) == len(drawn) == points.wanted(made)
    assert all(point[key] in wanted["choice"] for point in drawn for key, wanted in search.items())
    rest = take(of, 1000)
    assert len(drawn) + len(rest) == len(points.grid(made.with_values({"sweep.algorithm": "grid"})) or ())
    assert of.exhausted


RANGES = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}, "method.rank": {"uniform": [2, 16]}}


@given(st.sets(st.integers(0, 7)))
def test_an_interrupted_draw_goes_on_with_the_points_that_are_missing(before: set[int]) -> None:
    made = spec(RANGES, trials=8)
    whole = take(Points(made), 8)
    again = take(Points(made, [ended(whole[at]) for at in before]), 8 - len(before))
    assert again == [point for at, point in enumerate(whole) if at not in before]


def test_ranges_are_drawn_within_and_whole_where_the_spec_wants_whole_numbers() -> None:
    drawn = take(Points(spec(RANGES)), 50)
    assert all(1e-4 <= point["training.learning_rate"] <= 1e-2 for point in drawn)
    assert all(isinstance(point["method.rank"], int) and 2 <= point["method.rank"] <= 16 for point in drawn)


def test_the_same_point_written_otherwise_is_the_same() -> None:
    search = {"method.rank": {"choice": [8, 8.0, "8", 4]}, "method.target_modules": {"choice": [["query"], ["value"]]}}
    made = spec(search, algorithm="grid")
    assert points.wanted(made) == 4
    assert {point["method.rank"] for point in take(Points(made), 9)} == {4, 8}


def test_what_the_spec_refuses_as_a_whole_is_still_a_point_to_fail() -> None:
    made = spec({"training.micro_batch_size": {"choice": [3, 16]}}, algorithm="grid")
    assert {point["training.micro_batch_size"] for point in take(Points(made), 9)} == {3, 16}


@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_tpe_looks_where_points_were_good_before(status: str) -> None:
    made = spec({"training.learning_rate": {"loguniform": [1e-5, 1e-1]}}, algorithm="tpe", trials=12)
    draw = random.Random(0)
    rates = [10 ** draw.uniform(-5, -1) for _ in range(30)]
    known = [ended({"training.learning_rate": rate}, loss=rate, status=status) for rate in rates]
    of = Points(made, known)
    low = [point["training.learning_rate"] < 1e-3 for point in take(of, 10)]
    assert sum(low) >= 8


def test_a_failed_point_is_told_and_not_proposed_again() -> None:
    of = Points(spec({"method.rank": {"choice": [4]}}, algorithm="tpe"))
    point = of.next()
    assert point == {"method.rank": 4}
    of.told(Trial(points.name(point), point, None, None, 0.0, "failed", "broke"))
    assert of.next() is None


def test_what_a_spec_holds_under_dotted_keys() -> None:
    assert points.held(spec(RANGES), ["method.rank", "base_model"]) == {"method.rank": 8, "base_model": "m"}
