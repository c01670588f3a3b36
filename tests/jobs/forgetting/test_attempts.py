"""A retraining that forgets, on real Ray: remedies in turn, every number kept."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from jobs import pipeline, show
from jobs.data import preparation
from jobs.forgetting import forgetting
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OPPOSITE = {"positive": "negative", "negative": "positive"}


def test_a_retraining_that_forgets_is_tried_again_and_every_attempt_is_kept(
    ray_session: str, spec: Spec, place: Place
) -> None:
    # Old words come to mean the opposite, and only the new rows are trained on.
    spec = spec.with_values(
        {
            "retrain.replay": 0,
            "retrain.remedies": ["ewc", "replay"],
            "retrain.ewc_lambda": 1e5,
            "retrain.ewc_rows": 20,
            "evaluation.max_loss_on_old": 0,
            "training.patience": 100,
        }
    )
    old = preparation.prepare(spec, place.storage)
    champion = pipeline.train_and_publish(spec, old, place)
    assert champion.forgetting is None
    feedback = pd.DataFrame([{**row, "label": OPPOSITE[row["label"]]} for row in tiny.rows(90, seed=4)])
    new = preparation.extend(spec, place.storage, old, feedback)
    start = place.registry.download(champion.version)
    made = pipeline.train_and_publish(spec, new, place, start=start, parent=champion.version)

    found = made.forgetting
    assert found is not None
    count, losses = len(found.attempts), [a.loss for a in found.attempts]
    assert count > 1
    assert tuple(a.recipe for a in found.attempts) == forgetting.recipes(spec.retrain)[:count]
    assert [a.rows for a in found.attempts[:2]] == [new.size("train") - old.size("train")] * 2
    assert len({a.run for a in found.attempts}) == count
    # Which remedy helps how much is one row of 24 with so little data, and depends on the processor's last digits.
    assert min(losses[1:]) < losses[0]
    assert losses[found.published] == min(losses)
    assert losses[-1] <= 0 or count == 3
    # What was published is what was measured.
    assert made.scorecards["old"].metrics["accuracy"].value == pytest.approx(
        found.attempts[found.published].measured.anchor
    )
    folder = place.registry.download(made.version)
    assert json.loads((folder / "forgetting.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    text = show.forgetting(found)
    assert "accuracy on the old test rows" in text
    assert all(a.recipe.name in text for a in found.attempts)
    assert text.count("published") == 1
