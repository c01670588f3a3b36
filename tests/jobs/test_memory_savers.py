"""What trades time or digits for memory trains as the plain loop does, and goes on from its checkpoints."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import ResNetConfig

from cluster.errors import SpecError
from jobs.data import preparation
from jobs.models import model
from jobs.pipeline import Place
from jobs.plan import shapes
from jobs.spec import Spec
from jobs.training import loop, train
from jobs.training.loop import Work
from tests.jobs.tasks import projects

pytestmark = [  # what DeepSpeed calls of torch
    pytest.mark.filterwarnings("ignore:`torch:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = tmp_path_factory.mktemp("savers") / "project"
    return projects.spec("multi-label-classification", folder, 90, training__epochs=2)


def losses(work: Work, kept: Path | None = None, resume: Path | None = None) -> list[float]:
    made: list[float] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        made.append(metrics["train_loss"])
        if kept is not None and checkpoint is not None and not kept.exists():
            shutil.copytree(checkpoint, kept)

    loop.run(work, rank=0, world=1, threads=1, report=report, resume=resume and nullcontext(resume))
    return made


def work(spec: Spec, place: Place, **changes: Any) -> Work:
    """Past the spec, which wants a GPU for some of it: the arithmetic is the same on a CPU."""
    made = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    changed = spec.model_copy(update={"training": spec.training.model_copy(update=changes)})
    return replace(made, spec=changed, zero_stage=changes.get("zero_stage", 0))


@pytest.mark.long
def test_they_train_as_the_plain_loop_does(project: Spec, place: Place, process_group: None, tmp_path: Path) -> None:
    plain = losses(work(project, place))
    for changes, tolerance in (
        ({"activation_checkpointing": True}, 1e-6),
        ({"offload": "optimizer", "zero_stage": 1}, 1e-5),
        ({"offload": "parameters", "zero_stage": 3}, 1e-5),
        ({"precision": "bf16", "zero_stage": 2}, 5e-3),
    ):
        made, kept = work(project, place, **changes), tmp_path / str(len(list(tmp_path.iterdir())))
        found = losses(made, kept)
        assert found == pytest.approx(plain, rel=tolerance), changes
        assert losses(made, resume=kept) == pytest.approx(found, rel=1e-6), changes


def test_a_plan_counts_that_layers_are_computed_again(project: Spec) -> None:
    again = project.with_values({"training.activation_checkpointing": True})
    for method in ("full", "lora"):
        plain, less = (shapes.activations(shapes.on_meta(s, ["a", "b"], method), s) for s in (project, again))
        assert 0.1 * plain < less < 0.8 * plain


def test_a_model_that_cannot_compute_again_is_refused(project: Spec, tmp_path: Path) -> None:
    ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8).save_pretrained(str(tmp_path))
    values = {"task": "image-classification", "base_model": str(tmp_path), "evaluation.metric": "accuracy"}
    model.check(project.with_values(values))
    with pytest.raises(SpecError, match=r"training.activation_checkpointing: a resnet model cannot do it"):
        model.check(project.with_values(values | {"training.activation_checkpointing": True}))
