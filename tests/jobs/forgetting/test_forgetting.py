from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SpecError
from jobs import specfile
from jobs.data import preparation
from jobs.data.dataset import DatasetVersion
from jobs.forgetting import forgetting
from jobs.forgetting.forgetting import Attempt, Forgetting, Measured, Recipe
from jobs.pipeline import Place
from jobs.spec import RetrainSpec, Spec
from jobs.training import train
from jobs.training.tokens import Rows
from tests import tiny

LOSSES = st.floats(-1, 1, allow_nan=False)
REMEDIES = st.lists(st.sampled_from(["blend", "replay", "ewc"]), unique=True)


def attempt(recipe: Recipe, loss: float) -> Attempt:
    return Attempt(recipe, Measured(0.9 - loss, None), loss, 100, 1.0, "run")


def retrain(**values: object) -> RetrainSpec:
    return RetrainSpec.model_validate(values)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            retrain(replay=0.2, remedies=["replay", "ewc"]),
            [("as the spec says", 0.2, 0), ("replay", 1, 0), ("replay + ewc", 1, 1000)],
        ),
        (
            retrain(remedies=["replay", "blend", "ewc"]),
            [("as the spec says", 1, 0), ("blend", 1, 0), ("replay", 2, 0), ("replay + ewc", 2, 1000)],
        ),
        (retrain(replay=0, remedies=["ewc"], ewc_lambda=7), [("as the spec says", 0, 0), ("ewc", 0, 7)]),
        (
            retrain(replay=0, remedies=["ewc", "replay"]),
            [("as the spec says", 0, 0), ("ewc", 0, 1000), ("ewc + replay", 1, 1000)],
        ),
        (retrain(remedies=[]), [("as the spec says", 1, 0)]),
    ],
)
def test_each_remedy_comes_on_top_of_the_one_before(
    spec: RetrainSpec, expected: list[tuple[str, float, float]]
) -> None:
    assert [(r.name, r.replay, r.ewc_lambda) for r in forgetting.recipes(spec)] == expected
    assert [r.blend for r in forgetting.recipes(spec)] == [0.8 if name == "blend" else 1 for name, *_ in expected]


@given(st.lists(LOSSES, min_size=4, max_size=4), REMEDIES, st.floats(0, 1))
def test_a_chain_ends_at_the_first_that_keeps_to_the_budget(losses, remedies, budget) -> None:
    spec, left = retrain(remedies=remedies), iter(losses)
    made = forgetting.chain(spec, budget, lambda recipe: attempt(recipe, next(left)))
    kept = [forgetting.within(a.loss, budget) for a in made]
    assert not any(kept[:-1])
    assert kept[-1] or len(made) == 1 + len(remedies)
    assert [a.recipe for a in made] == list(forgetting.recipes(spec))[: len(made)]


@given(st.lists(LOSSES, min_size=1, max_size=5), st.floats(0, 1))
def test_the_best_keeps_to_the_budget_or_lost_least(losses, budget) -> None:
    attempts = [attempt(Recipe("x", 1), loss) for loss in losses]
    best = losses[forgetting.best(attempts, budget)]
    assert best <= budget + 1e-9 or best == min(losses)


def test_a_loss_of_just_the_budget_is_within_it() -> None:
    assert forgetting.within(0.94 - 0.92, 0.02)
    assert not forgetting.within(0.0201, 0.02)


def test_it_is_plain_json() -> None:
    made = Forgetting("accuracy", "the old test rows", 9, 0.02, Measured(0.9, 0.5), (attempt(Recipe("x", 1), 0.1),), 0)
    assert json.loads(json.dumps(made.to_dict()))["attempts"][0]["recipe"] == {
        "name": "x",
        "replay": 1,
        "ewc_lambda": 0,
        "blend": 1,
    }


def taken(version: DatasetVersion, made: Rows, place: Place) -> pd.DataFrame:
    """What they were made of."""
    frame = version.rows(place.storage, "train")
    return frame if made.chosen is None else frame.iloc[made.chosen]


@pytest.mark.parametrize("times", [0, 0.25, 1, 2])
def test_old_rows_come_back_as_often_as_the_recipe_says(spec: Spec, place: Place, times: float) -> None:
    old = preparation.prepare(spec, place.storage)
    new = preparation.extend(spec, place.storage, old, pd.DataFrame(tiny.rows(60, seed=9)))
    rows = taken(new, train.work(spec, new, place.storage, Path("x"), Recipe("x", times)).train, place)
    before = old.rows(place.storage, "train")["input"]
    assert rows["input"].isin(before).sum() == round(times * len(before))
    assert (~rows["input"].isin(before)).sum() == new.size("train") - old.size("train")
    assert rows["input"].value_counts().max() == max(1, times)


def test_a_recipe_that_holds_weights_takes_old_rows_to_judge_them_by(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    new = preparation.extend(spec, place.storage, old, pd.DataFrame(tiny.rows(60, seed=9)))
    spec = spec.with_values({"retrain.ewc_rows": 30})
    held = train.work(spec, new, place.storage, Path("x"), Recipe("x", 0, ewc_lambda=5)).consolidation
    assert held is not None
    assert (held.strength, len(held.rows)) == (5, 30)
    assert taken(new, held.rows, place)["input"].isin(old.rows(place.storage, "train")["input"]).all()


def test_a_remedy_named_twice_is_refused(spec: Spec) -> None:
    tree = spec.model_dump(mode="json")
    with pytest.raises(SpecError, match=r"retrain\.remedies: names a remedy twice"):
        specfile.parse({**tree, "retrain": {"remedies": ["ewc", "ewc"]}})


def test_holding_weights_that_are_sharded_is_refused_before_anything_starts(spec: Spec) -> None:
    with pytest.raises(SpecError, match=r"ZeRO stage 3 shards \(retrain\.remedies: \[replay\]"):
        train.check_remedies(spec, 3)
    train.check_remedies(spec, 2)
    train.check_remedies(spec.with_values({"retrain.remedies": ["replay"]}), 3)
