"""What is known of a model version, put together from its folder, its dataset, its run and the audit of its data.

What was not measured is None: the card says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from cluster.settings import Settings
from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from cluster.store.tracking import Run
from jobs.data import dataset
from jobs.data.dataset import DatasetVersion
from jobs.evaluation.footprint import Footprint
from jobs.evaluation.robustness import Robustness
from jobs.evaluation.scorecard import Scorecard
from jobs.forgetting.forgetting import Forgetting
from jobs.models import manifest
from jobs.spec import CardSpec, Spec
from jobs.training import energy
from jobs.training.energy import Energy

Kind = TypeVar("Kind")

SECONDS = "train_seconds"


@dataclass(frozen=True)
class Facts:
    """`ancestors` from the parent of `data` to the first; `pictures` are paths below the version's folder."""

    spec: Spec
    card: CardSpec
    manifest: Mapping[str, Any]
    data: DatasetVersion
    ancestors: tuple[DatasetVersion, ...]
    scorecards: Mapping[str, Scorecard]
    pictures: tuple[str, ...]
    robustness: tuple[Robustness, ...] | None = None
    footprint: Footprint | None = None
    forgetting: Forgetting | None = None
    audit: Mapping[str, Any] | None = None
    """As `audit.json` holds it: of `data`, or of the nearest ancestor that was audited."""
    seconds: float | None = None
    """Of all trainings that led to the version."""
    energy: Energy | None = None


@dataclass(frozen=True)
class Told:
    """What became of a version after it was made; unknown while it is being made.

    `line` are the version's parents in the registry, nearest first; `causes` what led to it, oldest first.
    """

    version: ModelVersion
    line: tuple[int, ...]
    verdict: Mapping[str, Any] | None
    causes: tuple[str, ...]


def gather(folder: Path, run: Run, storage: Storage, settings: Settings, card: CardSpec | None = None) -> Facts:
    """Of the version in `folder`, trained in `run`; what `card` states comes before what its spec stated then.

    Raises NotFoundError when its dataset is gone.
    """
    described = manifest.read(folder)
    spec = manifest.spec(described)
    data = dataset.read(storage, described["dataset"]["name"], described["dataset"]["version"])
    forgotten = _read(folder / "forgetting.json", Forgetting)
    seconds = _trained(forgotten) if forgotten else run.last(SECONDS)
    ancestors = dataset.ancestors(storage, data)
    cards = _read(folder / "scorecard.json", dict[str, Scorecard])
    assert cards is not None
    return Facts(
        spec=spec,
        card=spec.card.model_copy(update=card.model_dump(exclude_none=True) if card else {}),
        manifest=described,
        data=data,
        ancestors=tuple(ancestors),
        scorecards=cards,
        pictures=tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))),
        robustness=_read(folder / "robustness.json", tuple[Robustness, ...]),
        footprint=_read(folder / "footprint.json", Footprint),
        forgetting=forgotten,
        audit=_audit(storage, [data, *ancestors]),
        seconds=seconds,
        energy=None if seconds is None else energy.used(seconds, spec.scaling, settings),
    )


def _trained(found: Forgetting) -> float:
    """Seconds of the attempts that trained: a blend has those of the training it was made from."""
    return sum(attempt.seconds for attempt in found.attempts if attempt.recipe.blend == 1)


def _audit(storage: Storage, versions: Sequence[DatasetVersion]) -> Mapping[str, Any] | None:
    paths = (f"audits/{data.name}/{data.version}/audit.json" for data in versions)
    return next((storage.read_json(path) for path in paths if storage.exists(path)), None)


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    return TypeAdapter(kind).validate_json(path.read_bytes()) if path.exists() else None
