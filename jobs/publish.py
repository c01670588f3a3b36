"""A trained model becomes a registered version, alias `challenger`.

A version's folder:

    manifest.json       task, base model, labels, resolved spec, dataset version, parent, packages, ZeRO stage
    adapter/ | weights/ what was trained
    tokenizer/          the base model's
    scorecard.json      {"old": ..., "new": ...}
    reference.parquet   the test split as this version answered it: what monitoring compares production with
    vocabulary.json     words of the training split
    golden.json         inputs and the trainer's own scores for them: serving must answer the same
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.registry import ModelVersion, Registry
from cluster.storage import Storage
from cluster.tracking import Run

from . import evaluate, model
from .dataset import DatasetVersion
from .predictor import Predictor
from .scorecard import Scorecard
from .spec import Spec
from .split import TRAIN
from .vocabulary import vocabulary

_GOLDEN_ROWS = 8
_PACKAGES = ("ray", "torch", "transformers", "peft", "deepspeed", "datasets")


@dataclass(frozen=True)
class Published:
    version: ModelVersion
    scorecards: Mapping[str, Scorecard]


def publish(
    spec: Spec,
    data: DatasetVersion,
    trained: Path,
    *,
    storage: Storage,
    registry: Registry,
    run: Run,
    parent: ModelVersion | None = None,
) -> Published:
    """Evaluate the model in `trained`, put the version's folder together and register it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        for part in ("adapter", "weights"):
            if (trained / part).is_dir():
                shutil.copytree(trained / part, folder / part)
        model.tokenizer(model.locate(spec.base_model)).save_pretrained(str(folder / "tokenizer"))
        _write(folder / "manifest.json", _manifest(spec, data, run, parent))
        # As the trainer has it, with the adapter beside the base: what serving merges must agree with this.
        predictor = Predictor.load(folder, merge=False)
        rows = evaluate.answers(predictor, data, storage)
        cards = evaluate.scorecards(rows, data.labels, spec.evaluation)
        _write(folder / "scorecard.json", {name: card.to_dict() for name, card in cards.items()})
        rows.to_parquet(folder / "reference.parquet", index=False)
        _write(folder / "vocabulary.json", vocabulary(data.rows(storage, TRAIN)["text"]))
        _write(folder / "golden.json", _golden(predictor, rows))
        source = run.log_folder(folder, "model")
    run.log_metrics({f"test_{name}_{m}": v.value for name, card in cards.items() for m, v in card.metrics.items()})
    tags = {"dataset": data.version, "spec": spec.hash, "task": spec.task, "base_model": spec.base_model}
    version = registry.register(spec.name, run.id, source, tags | ({"parent": str(parent.version)} if parent else {}))
    return Published(version, cards)


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version's folder."""
    tree: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return tree


def code_version() -> str:
    """The commit of a checkout, with `+` when something is changed; else the installed version."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"],  # noqa: S607 - whichever git there is
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else importlib.metadata.version("rehone")


def _manifest(spec: Spec, data: DatasetVersion, run: Run, parent: ModelVersion | None) -> dict[str, Any]:
    return {
        "task": spec.task,
        "base_model": spec.base_model,
        "labels": list(data.labels),
        "dataset": {"name": data.name, "version": data.version},
        "parent": parent.version if parent else None,
        "run": run.id,
        "code": code_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "spec": spec.model_dump(mode="json"),
    }


def _golden(predictor: Predictor, rows: pd.DataFrame) -> dict[str, Any]:
    inputs = list(rows["input"].head(_GOLDEN_ROWS))
    return {"inputs": inputs, "scores": [list(output.scores.values()) for output in predictor(inputs)]}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2))
