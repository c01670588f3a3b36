"""A trained model becomes a registered version, alias `challenger`.

A version's folder:

    manifest.json       task, base model, labels, resolved spec, dataset version, parent, code, packages, machine
    adapter/ | weights/ what was trained
    processor/          the base model's tokenizer or image processor
    scorecard.json      {"old": ..., "new": ...}
    robustness.json     the same rows with typos, in other case, with other punctuation
    footprint.json      latency on the machine that published it, and size
    curve.json          the reports of the training, in order
    pictures/           confusion, reliability, slices and learning curve, as PNG
    card.md, card.html  the model card as it was when nothing had judged the version
    reference.parquet   the test split as this version answered it: what monitoring compares production with
    vocabulary.json     words of the training split, where its inputs have words
    forgetting.json     what each attempt of a retraining lost on the anchor; only after a retraining from a champion
    golden.json         inputs and the trainer's own answers and scores for them: serving must answer the same
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.store import fetched
from cluster.store.registry import FILES, ModelVersion, Registry
from cluster.store.storage import Storage
from cluster.store.tracking import Run
from jobs import tasks
from jobs.card import card as card_
from jobs.card import facts
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TRAIN
from jobs.evaluation import evaluate, plot
from jobs.evaluation.evaluate import Evaluation
from jobs.evaluation.scorecard import Scorecard
from jobs.forgetting.forgetting import Forgetting
from jobs.spec import Spec
from jobs.training import curve as curve_

from . import manifest, model
from .predictor import Predictor
from .provenance import provenance

_GOLDEN_ROWS = 8

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Published:
    version: ModelVersion
    evaluation: Evaluation
    forgetting: Forgetting | None = None
    """Of a retraining that went on from its parent."""

    @property
    def scorecards(self) -> Mapping[str, Scorecard]:
        return self.evaluation.scorecards


def publish(
    spec: Spec,
    data: DatasetVersion,
    trained: Path,
    *,
    curve: Curve,
    storage: Storage,
    registry: Registry,
    run: Run,
    parent: ModelVersion | None = None,
    forgetting: Forgetting | None = None,
) -> Published:
    """Evaluate the model in `trained`, put the version's folder together and register it.

    `curve` are the reports of its training, which for blended weights are in another run than `run`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        made = assemble(
            folder, spec, data, trained, curve=curve, storage=storage, run=run, parent=parent, forgetting=forgetting
        )
        card_.write(folder, facts.gather(folder, run, storage, registry.settings))
        files, source = fetched.digest(folder), run.log_folder(folder, "model")
    cards = made.scorecards.items()
    run.log_metrics({f"test_{name}_{m}": v.value for name, card in cards for m, v in card.metrics.items()})
    tags = {
        "dataset": data.version,
        "spec": spec.hash,
        "task": spec.task,
        "base_model": spec.base_model,
        "method": spec.method.name,
        FILES: files,
    }
    version = registry.register(spec.name, run.id, source, tags | ({"parent": str(parent.version)} if parent else {}))
    return Published(version, made, forgetting)


def assemble(
    folder: Path,
    spec: Spec,
    data: DatasetVersion,
    trained: Path,
    *,
    curve: Curve,
    storage: Storage,
    run: Run,
    parent: ModelVersion | None = None,
    forgetting: Forgetting | None = None,
) -> Evaluation:
    """Make a version's folder of the model in `trained`, and evaluate it. Registers nothing."""
    folder.mkdir()
    for part in ("adapter", "weights"):
        if (trained / part).is_dir():
            shutil.copytree(trained / part, folder / part)
    task = tasks.get(spec.task)
    task.processor(model.locate(spec.base_model)).save_pretrained(str(folder / "processor"))
    _write(folder / manifest.NAME, _manifest(spec, data, run, parent))
    # As the trainer has it, with the adapter beside the base: what serving merges must agree with this.
    predictor = Predictor.load(folder, merge=False)
    rows = evaluate.answers(predictor, data, storage, spec.evaluation)
    made = evaluate.evaluate(rows, Predictor.load(folder), folder, data, spec.evaluation)
    _keep(folder, made)
    _write(folder / "curve.json", list(curve))
    if curve:  # there is none of a model that was made elsewhere
        curve_.draw(curve, folder / "pictures" / "learning-curve.png")
    rows.to_parquet(folder / "reference.parquet", index=False)
    _write(folder / "vocabulary.json", task.inputs.vocabulary(data.rows(storage, TRAIN)["input"]))
    _write(folder / "golden.json", _golden(predictor, rows))
    if forgetting is not None:
        _write(folder / "forgetting.json", forgetting.to_dict())
    return made


def _manifest(spec: Spec, data: DatasetVersion, run: Run, parent: ModelVersion | None) -> dict[str, Any]:
    return {
        "task": spec.task,
        "base_model": spec.base_model,
        "labels": list(data.labels),
        "dataset": {"name": data.name, "version": data.version},
        "parent": parent.version if parent else None,
        "run": run.id,
        **provenance(),
        "spec": spec.model_dump(mode="json"),
    }


def _golden(predictor: Predictor, rows: pd.DataFrame) -> dict[str, Any]:
    inputs = list(rows["input"].head(_GOLDEN_ROWS))
    outputs = predictor(inputs)
    return {
        "inputs": inputs,
        "labels": [output.label for output in outputs],
        "scores": [list(output.scores.values()) for output in outputs],
    }


def _keep(folder: Path, made: Evaluation) -> None:
    tree = made.to_dict()
    for name, part in (("scorecard", "scorecards"), ("robustness", "robustness"), ("footprint", "footprint")):
        _write(folder / f"{name}.json", tree[part])
    (folder / "pictures").mkdir()
    for name, card in made.scorecards.items():
        plot.scorecard(name, card, folder / "pictures")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2))
