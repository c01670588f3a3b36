"""A version trained once more from its manifest, to see how far the new one differs. Nothing is registered.

With the same machine, packages and seed the difference is 0: rows, their order, the new head, the adapters and dropout
all follow from the seed (`batches.py`, `model.py`, `loop.py`), and threads are those that the version was made with.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.console import say
from cluster.errors import DataError
from cluster.session import require
from cluster.store.registry import ModelVersion
from jobs import pipeline
from jobs.data import dataset
from jobs.data.dataset import DatasetVersion
from jobs.forgetting import attempts
from jobs.forgetting.forgetting import Recipe
from jobs.pipeline import Place
from jobs.show import table
from jobs.spec import Spec
from jobs.training import train

from . import manifest, publish
from .provenance import differences


@dataclass(frozen=True)
class Figure:
    """One number of the version and of its reproduction; NaN where one of them has no such number."""

    name: str
    then: float
    now: float

    @property
    def difference(self) -> float:
        """Absolute; infinite when only one of them is a number."""
        if math.isnan(self.then) or math.isnan(self.now):
            return 0.0 if math.isnan(self.then) and math.isnan(self.now) else math.inf
        return 0.0 if self.then == self.now else abs(self.now - self.then)


@dataclass(frozen=True)
class Reproduction:
    """`run` is the new MLflow run, `causes` what is not as it was.

    `scores`: largest difference of a probability on the golden inputs; `weights`: of a trained weight.
    """

    model: str
    version: int
    run: str
    figures: tuple[Figure, ...]
    scores: float
    weights: float
    causes: tuple[str, ...]
    tolerance: float

    @property
    def largest(self) -> float:
        """Of a figure or a score."""
        return max(self.scores, *(figure.difference for figure in self.figures))

    @property
    def reproduced(self) -> bool:
        return self.largest <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        figures = {f.name: {"then": f.then, "now": f.now, "difference": f.difference} for f in self.figures}
        kept = {key: value for key, value in vars(self).items() if key != "figures"}
        return kept | {"figures": figures, "largest": self.largest, "reproduced": self.reproduced}


@dataclass(frozen=True)
class Origin:
    """A version's folder and what it was trained from. `start` and `recipe` only where it went on from its parent."""

    folder: Path
    spec: Spec
    data: DatasetVersion
    manifest: Mapping[str, Any]
    parent: ModelVersion | None = None
    start: Path | None = None
    recipe: Recipe | None = None


def origin(place: Place, version: ModelVersion) -> Origin:
    """Raises NotFoundError when its dataset or parent is gone, DataError when the dataset is not what it was."""
    folder = place.registry.download(version)
    described = manifest.read(folder)
    data = dataset.read(place.storage, described["dataset"]["name"], described["dataset"]["version"])
    if not data.intact(place.storage):
        raise DataError("is not what it was when the version was trained", where=place.storage.url(data.place))
    spec = manifest.spec(described)
    if described["parent"] is None:
        return Origin(folder, spec, data, described)
    parent = place.registry.get(version.model, described["parent"])
    if not (folder / "forgetting.json").exists():
        return Origin(folder, spec, data, described, parent)
    forgotten = json.loads((folder / "forgetting.json").read_text())
    recipe = Recipe(**forgotten["attempts"][forgotten["published"]]["recipe"])
    return Origin(folder, spec, data, described, parent, place.registry.download(parent), recipe)


def reproduce(found: Origin, version: ModelVersion, place: Place, tolerance: float = 0.0) -> Reproduction:
    """Train again in a run of its own and compare. Ray must be connected. Raises TrainingError, UserError."""
    import torch

    spec = found.spec
    require(spec.scaling.bundles)
    torch.set_num_threads(found.manifest["machine"].get("threads", torch.get_num_threads()))
    say(f"training {version.model} version {version.version} again, on dataset {found.data.version}")
    with pipeline.open_run(spec, found.data, place, "reproduce") as run, tempfile.TemporaryDirectory() as temporary:
        job = train.work(spec, found.data, place.storage, found.start, found.recipe)
        trained = train.fit(job, place.storage, run, "reproduce")
        if found.start is not None and found.recipe is not None:
            trained = attempts.blended(trained, found.start, found.recipe, Path(temporary) / "blend")
        folder = Path(temporary) / "model"
        publish.assemble(
            folder,
            spec,
            found.data,
            trained.folder,
            curve=trained.curve,
            storage=place.storage,
            run=run,
            parent=found.parent,
        )
        made = Reproduction(
            model=version.model,
            version=version.version,
            run=run.id,
            figures=figures(_measured(found.folder), _measured(folder)),
            scores=_largest(_golden(found.folder), _golden(folder)),
            weights=_largest(_weights(found.folder), _weights(folder)),
            causes=differences(found.manifest, manifest.read(folder)),
            tolerance=tolerance,
        )
        run.log_json(made.to_dict(), "reproduction.json")
    return made


def figures(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Every number in two nested results, by its dotted path."""
    before, after = dict(_numbers(then)), dict(_numbers(now))
    names = [*before, *(name for name in after if name not in before)]
    return tuple(Figure(name, before.get(name, math.nan), after.get(name, math.nan)) for name in names)


def shown(made: Reproduction) -> str:
    """The figures people look at, then every other one that differs, and what may be the cause."""
    told = [f for f in made.figures if f.difference or f.name.endswith(".value") or f.name.startswith("train.")]
    rows = ([f.name, f"{f.then:.6g}", f"{f.now:.6g}", f"{f.difference:.3g}"] for f in told)
    head = f"{made.model} version {made.version} trained again, run {made.run}"
    causes = "; ".join(made.causes) or "nothing, it is the same code, packages and machine"
    return "\n".join(
        [
            table(head, ["figure", "then", "now", "difference"], rows),
            f"{len(made.figures) - len(told)} more figures are the same to the last bit",
            f"largest difference: {made.scores:.3g} of a golden score, {made.weights:.3g} of a weight",
            f"what is not as it was: {causes}",
            f"{'reproduced' if made.reproduced else 'not reproduced'}, within {made.tolerance:g}: {made.largest:.3g}",
        ]
    )


def _measured(folder: Path) -> dict[str, Any]:
    reports = json.loads((folder / "curve.json").read_text())
    best = min(reports, key=lambda report: report["validation_loss"])
    return {
        "train": {"steps": reports[-1]["step"], "loss": reports[-1]["train_loss"], "best step": best["step"]}
        | {name: best[name] for name in ("validation_loss", "validation_accuracy")},
        **json.loads((folder / "scorecard.json").read_text()),
        "robustness": json.loads((folder / "robustness.json").read_text()),
    }


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping | list):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, part in parts:
            yield from _numbers(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def _golden(folder: Path) -> dict[str, Any]:
    golden = json.loads((folder / "golden.json").read_text())
    return {"scores": np.asarray(golden["scores"])}


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    files = [file for part in ("adapter", "weights") for file in sorted((folder / part).glob("*.safetensors"))]
    return {name: weight for file in files for name, weight in load_file(file).items()}


def _largest(then: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """The largest absolute difference of two sets of arrays; infinite when they do not have the same shapes."""
    if {name: part.shape for name, part in then.items()} != {name: part.shape for name, part in now.items()}:
        return math.inf
    return max(float(np.abs(now[name] - part).max()) for name, part in then.items())
