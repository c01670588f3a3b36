"""A retraining, whole: new dataset version from old data and labelled feedback, train, judge, promote or dismiss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.console import say
from jobs import pipeline
from jobs.data import dataset, preparation
from jobs.data.dataset import DatasetVersion
from jobs.models import manifest
from jobs.models.publish import Published
from jobs.pipeline import Place
from jobs.spec import Spec

from .judges.gate import Verdict
from .promotion import settle
from .windows import labelled


@dataclass(frozen=True)
class Retrained:
    """What came out; `published.scorecards` and the champion's were made on the same rows."""

    published: Published
    dataset: DatasetVersion
    verdict: Verdict


def retrain(spec: Spec, place: Place) -> Retrained:
    """Ray must be connected. Raises NotFoundError without a champion, DataError with too little feedback."""
    champion = place.registry.champion(spec.name)
    folder = place.registry.download(champion)
    old = dataset.read(place.storage, spec.name, champion.tags["dataset"])
    feedback = labelled(place.storage, spec.name, None)
    new = preparation.extend(spec, place.storage, old, feedback.rename(columns={"true": "label"})[["input", "label"]])
    say(f"dataset {new.version}: {new.source}")
    start = folder if spec.retrain.start == "champion" else None
    published = pipeline.train_and_publish(_as_champion(spec, folder), new, place, start=start, parent=champion)
    return Retrained(published, new, settle(spec, place, published.version))


def _as_champion(spec: Spec, folder: Path) -> Spec:
    """The champion's method and training values, which are the best known, for the retraining's epochs.

    Weights that are to go on from where they are need smaller steps than new ones.
    """
    best = manifest.spec(manifest.read(folder))
    rate = best.training.learning_rate * (spec.retrain.rate if spec.retrain.start == "champion" else 1)
    training = best.training.model_copy(update={"epochs": spec.retrain.epochs, "learning_rate": rate})
    return spec.model_copy(update={"method": best.method, "training": training, "base_model": best.base_model})
