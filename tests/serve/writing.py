"""A version of a tiny causal model that has learned nothing, with what serving needs of its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from jobs.models.predictor import Predictor
from jobs.tasks.task import Output
from tests.jobs.tasks import projects

INPUTS = ["219 South Dearborn", "5th Ave", "12 Main Street North, Chicago IL 60601", "a"]


def folder(home: Path) -> Path:
    """Golden answers are PyTorch's. vLLM on a CPU wants heads of 32; its weights are wide, so that no two tokens tie."""
    spec = projects.spec("text-generation", home / "project", 40, training__max_answer=12)
    base = Path(spec.base_model)
    projects.llama(base, num_attention_heads=2, initializer_range=0.3)
    made = home / "version"
    shutil.copytree(base, made / "weights", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(base, made / "processor", ignore=shutil.ignore_patterns("model*"))
    manifest = {"task": spec.task, "base_model": str(base), "labels": [], "spec": spec.model_dump(mode="json")}
    (made / "manifest.json").write_text(json.dumps(manifest))
    golden(made, Predictor.load(made)(INPUTS))
    return made


def golden(version: Path, outputs: list[Output]) -> None:
    """The trainer's answers are these."""
    tree = {"inputs": INPUTS, "labels": [output.label for output in outputs], "scores": [[]] * len(outputs)}
    (version / "golden.json").write_text(json.dumps(tree))


def same(one: Output, other: Output) -> bool:
    """But for the last digits."""
    close = np.allclose(one.embedding, other.embedding, atol=1e-4)
    return close and one.label == other.label and bool(np.isclose(one.confidence, other.confidence, rtol=1e-3, atol=0))
