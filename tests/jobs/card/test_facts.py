from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from cluster.settings import Settings
from jobs.card import facts
from jobs.card.facts import Facts
from jobs.data import preparation
from jobs.evaluation.scorecard import score
from jobs.forgetting.forgetting import Attempt, Forgetting, Measured, Recipe
from jobs.pipeline import Place
from jobs.spec import CardSpec, Spec

SETTINGS = Settings(cpu_watts=10)


def gather(
    spec: Spec, place: Place, folder: Path, card: CardSpec | None = None, forgotten: Forgetting | None = None
) -> Facts:
    """From a folder with no more than a version must have."""
    made = preparation.prepare(spec, place.storage)
    tree = {"spec": spec.model_dump(mode="json"), "dataset": {"name": made.name, "version": made.version}}
    (folder / "manifest.json").write_text(json.dumps(tree))
    (folder / "scorecard.json").write_text(json.dumps({"old": score(["a"], ["a"], ["a", "b"]).to_dict()}))
    if forgotten is not None:
        (folder / "forgetting.json").write_text(json.dumps(forgotten.to_dict()))
    return facts.gather(folder, SimpleNamespace(last={facts.SECONDS: 36.0}.get), place.storage, SETTINGS, card)


def test_what_is_not_there_is_none(spec: Spec, place: Place, tmp_path: Path) -> None:
    found = gather(spec, place, tmp_path)
    assert (found.robustness, found.footprint, found.forgetting, found.audit, found.pictures) == (None,) * 4 + ((),)
    assert found.seconds == 36
    assert found.energy is not None
    assert found.energy.cpu_hours == 36 / 3600 * spec.scaling.workers


def test_a_blend_costs_no_training(spec: Spec, place: Place, tmp_path: Path) -> None:
    recipes = [Recipe("as the spec says", 0), Recipe("blend", 0, blend=0.8), Recipe("replay", 1)]
    attempts = tuple(Attempt(recipe, Measured(0.5, None), 0.1, 9, 20.0, "run") for recipe in recipes)
    forgotten = Forgetting("accuracy", "the old test rows", 9, 0.02, Measured(0.6, None), attempts, 1)
    assert gather(spec, place, tmp_path, forgotten=forgotten).seconds == 40


def test_a_card_stated_now_comes_before_one_stated_then(spec: Spec, place: Place, tmp_path: Path) -> None:
    then = spec.with_values({"card.licence": "mit", "card.contact": "a@b"})
    found = gather(then, place, tmp_path, CardSpec(licence="apache-2.0"))
    assert (found.card.licence, found.card.contact) == ("apache-2.0", "a@b")


def test_the_audit_is_that_of_the_nearest_version_that_has_one(spec: Spec, place: Place, tmp_path: Path) -> None:
    made = preparation.prepare(spec, place.storage)
    place.storage.write_json(f"audits/{made.name}/{made.version}/audit.json", {"dataset": made.version})
    assert gather(spec, place, tmp_path).audit == {"dataset": made.version}
