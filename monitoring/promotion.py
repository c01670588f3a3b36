"""Acting on the gate's verdict: move the alias or dismiss the challenger, and write both to the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from cluster.registry import CHAMPION, ModelVersion
from jobs import evaluate
from jobs.dataset import DatasetVersion
from jobs.pipeline import Place
from jobs.predictor import Predictor
from jobs.publish import Published
from jobs.scorecard import Scorecard
from jobs.spec import Spec

from .gate import Verdict, judge
from .journal import Journal


def settle(spec: Spec, place: Place, published: Published, data: DatasetVersion) -> Verdict:
    """Judge a challenger against the champion on the same holdout, that of `data`, and act."""
    challenger, registry, journal = published.version, place.registry, Journal(place.storage)
    champion = registry.find(spec.name, CHAMPION)
    verdict = judge(
        _scorecards(champion, spec, place, data) if champion else None, published.scorecards, spec.evaluation
    )
    journal.write(spec.name, "verdict", "done", str(challenger.version), verdict.to_dict())
    registry.tag(spec.name, challenger.version, {"verdict": json.dumps(verdict.to_dict())})
    if verdict.promote:
        promote(spec.name, challenger.version, place)
    else:
        registry.dismiss(spec.name)
    return verdict


def promote(model: str, version: int, place: Place) -> ModelVersion:
    """Make a version champion. Raises NotFoundError."""
    return _move(place, "promotion", model, lambda: place.registry.promote(model, version), version)


def roll_back(model: str, place: Place) -> ModelVersion:
    """Make the previous champion champion again. Raises NotFoundError."""
    previous = place.registry.previous(model).version
    return _move(place, "rollback", model, lambda: place.registry.promote(model, previous), previous)


def _move(place: Place, kind: str, model: str, act: Callable[[], ModelVersion], version: int) -> ModelVersion:
    place.registry.get(model, version)
    journal, key = Journal(place.storage), f"{version}-{time.time_ns()}"
    journal.write(model, kind, "begun", key, {"version": version})
    moved = act()
    journal.write(model, kind, "done", key, {"version": version})
    return moved


def _scorecards(champion: ModelVersion, spec: Spec, place: Place, data: DatasetVersion) -> Mapping[str, Scorecard]:
    predictor = Predictor.load(place.registry.download(champion))
    return evaluate.scorecards(evaluate.answers(predictor, data, place.storage), data.labels, spec.evaluation)
