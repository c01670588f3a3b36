"""Versions that are adapters on one tiny base, as a registry keeps them: not trained, each with weights of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from jobs import tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import Spec
from tests import tiny

LABELS = ("negative", "positive")
TEXTS = [row["input"] for row in tiny.rows(8, seed=3)]


def write(folder: Path, spec: Spec, seed: int, labels: Sequence[str] = LABELS, inputs: Sequence[str] = TEXTS) -> Path:
    """The files of a version. Its weights follow from `seed`, and are large enough for answers that differ."""
    task = tasks.get(spec.task)
    net = model.trainable(spec, labels)
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in net.parameters():
            if part.requires_grad:
                part.normal_(std=0.3)
    folder.mkdir(parents=True)
    model.save(net, None, folder)
    task.processor(spec.base_model).save_pretrained(str(folder / "processor"))
    described = {
        "task": spec.task,
        "base_model": spec.base_model,
        "labels": list(labels),
        "spec": spec.model_dump(mode="json"),
    }
    (folder / "manifest.json").write_text(json.dumps(described))
    outputs = Predictor.load(folder, merge=False)(inputs)
    golden = {
        "inputs": list(inputs),
        "labels": [output.label for output in outputs],
        "scores": [list(output.scores.values()) for output in outputs],
    }
    (folder / "golden.json").write_text(json.dumps(golden))
    return folder
