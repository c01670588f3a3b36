"""Acting on the gate's verdict: move the alias or dismiss the challenger, and write both to the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pandas as pd

from cluster.registry import CHAMPION, ModelVersion
from cluster.tracking import Tracker
from jobs.evaluation import footprint
from jobs.pipeline import Place
from jobs.predictor import Predictor
from jobs.publish import Published
from jobs.spec import Spec

from . import gate
from .gate import Verdict
from .journal import Journal


def settle(spec: Spec, place: Place, published: Published) -> Verdict:
    """Judge a challenger against the champion on the same holdout, the one it was published with, and act."""
    challenger, registry, journal = published.version, place.registry, Journal(place.storage)
    champion = registry.find(spec.name, CHAMPION)
    verdict = _judged(spec, place, champion, challenger)
    tree = verdict.to_dict()
    journal.write(spec.name, "verdict", "done", str(challenger.version), tree)
    Tracker(place.settings, spec.name).open(challenger.run).log_json(tree, "verdict.json")
    # A tag has a limit, and slices can be many: their checks are in the file.
    del tree["checks"]
    registry.tag(spec.name, challenger.version, {"verdict": json.dumps(tree)})
    if verdict.promote:
        promote(spec.name, challenger.version, place)
    else:
        registry.dismiss(spec.name)
    return verdict


def promote(model: str, version: int, place: Place) -> ModelVersion:
    """Make a version champion. Raises NotFoundError."""
    return _move(place, "promotion", model, lambda: place.registry.promote(model, version), version)


def roll_back(model: str, place: Place, version: int | None = None) -> ModelVersion:
    """Make a version, the previous champion when none is named, champion again. Raises NotFoundError."""
    to = place.registry.previous(model).version if version is None else version
    return _move(place, "rollback", model, lambda: place.registry.promote(model, to), to)


def _move(place: Place, kind: str, model: str, act: Callable[[], ModelVersion], version: int) -> ModelVersion:
    place.registry.get(model, version)
    journal, key = Journal(place.storage), f"{version}-{time.time_ns()}"
    journal.write(model, kind, "begun", key, {"version": version})
    moved = act()
    journal.write(model, kind, "done", key, {"version": version})
    return moved


def _judged(spec: Spec, place: Place, champion: ModelVersion | None, challenger: ModelVersion) -> Verdict:
    folder = place.registry.download(challenger)
    rows = pd.read_parquet(folder / "reference.parquet").rename(columns={"label": "challenger"})
    if champion is None:
        return gate.first(rows, spec.evaluation)
    ours = Predictor.load(place.registry.download(champion))
    rows["champion"] = [output.label for output in ours(list(rows["input"]))]
    ratios = footprint.compare(ours, Predictor.load(folder), list(rows["input"]))
    return gate.judge(rows, ratios, spec.evaluation)
