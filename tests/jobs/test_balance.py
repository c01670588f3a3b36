from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.data import preparation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.tasks.task import Bounds
from jobs.training import loop, train
from jobs.training.balance import class_weights, oversample
from tests import tiny

labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


@given(labels)
def test_weights_are_one_on_average_and_even_out_the_labels(drawn) -> None:
    series = pd.Series(drawn)
    order = sorted(set(drawn))
    weights = dict(zip(order, class_weights(series, order), strict=True))
    assert series.map(weights).mean() == pytest.approx(1)
    sums = series.map(weights).groupby(series).sum()
    assert sums.max() == pytest.approx(sums.min())


@given(labels, st.integers(0, 3))
def test_oversampling_keeps_every_row_and_makes_labels_even(drawn, seed) -> None:
    rows = pd.DataFrame({"label": drawn, "row": range(len(drawn))})
    made = oversample(rows, seed)
    counts = made["label"].value_counts()
    assert counts.min() == counts.max()
    assert set(made["row"]) == set(rows["row"])
    often = made.groupby("label")["row"].value_counts()
    assert (often.groupby("label").max() - often.groupby("label").min() <= 1).all()
    assert made.equals(oversample(rows, seed))


@pytest.mark.slow
def test_both_remedies_reach_the_training(process_group: None, spec: Spec, place: Place) -> None:
    """Three in ten of the texts with good words are positive: alone that is never enough, with either remedy always."""
    rows = tiny.rows(600)
    good = [row for row in rows if row["label"] == "positive"]
    for i, row in enumerate(good):
        row["label"] = "positive" if i % 10 < 3 else "negative"
    tiny.write_csv(Path(spec.data.source), rows)
    found = {balance: recall(spec, place, balance) for balance in ("none", "class_weights", "oversample")}
    assert found["none"] < 0.3
    assert min(found["class_weights"], found["oversample"]) > 0.6


def recall(spec: Spec, place: Place, balance: str) -> float:
    """Share of the rare label's validation rows that the best checkpoint of a short training finds."""
    changes = {"data.balance": balance, "training.epochs": 6, "scaling.workers": 1}
    changed = spec.with_values(
        {**changes, "data.split.train": 0.5, "data.split.validation": 0.4, "data.split.test": 0.1}
    )
    version = preparation.prepare(changed, place.storage)
    job = train.work(changed, version, place.storage)
    with tempfile.TemporaryDirectory() as folder:
        kept, losses = Path(folder) / "kept", [float("inf")]

        def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
            assert checkpoint is not None
            if metrics["validation_loss"] < min(losses):
                shutil.copytree(checkpoint, kept, dirs_exist_ok=True)
            losses.append(metrics["validation_loss"])

        loop.run(job, rank=0, world=1, threads=1, report=report)
        net = model.load(kept, tiny.TASK, spec.base_model, job.labels)
    validation = version.rows(place.storage, "validation")
    rare = validation[validation["label"] == "positive"]
    served = Predictor(net, tiny.TASK, tiny.TASK.processor(spec.base_model), job.labels, Bounds(32, 1))
    return sum(output.label == "positive" for output in served(list(rare["input"]))) / len(rare)


def test_losses_of_micro_batches_add_up_to_the_weighted_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(12, 3, generator=draw), torch.randint(0, 3, (12,), generator=draw)
    weights = torch.tensor([0.5, 1.0, 4.0])

    def weighted(rows: slice) -> torch.Tensor:
        said = SimpleNamespace(logits=logits[rows])
        losses, _ = tiny.TASK.losses(lambda **_: said, {"labels": labels[rows]})
        return loop._weighed(losses, {"labels": labels[rows]}, weights).mean()

    whole = weighted(slice(12))
    parts = torch.stack([weighted(slice(i, i + 4)) for i in (0, 4, 8)])
    assert parts.mean().item() == pytest.approx(whole.item())
    by_torch = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="sum") / 12
    assert whole.item() == pytest.approx(by_torch.item())


def test_work_carries_the_remedy(spec: Spec, place: Place) -> None:
    version = preparation.prepare(spec, place.storage)
    counts = version.counts["train"]
    plain, weighted, repeated = (
        train.work(spec.with_values({"data.balance": balance}), version, place.storage)
        for balance in ("none", "class_weights", "oversample")
    )
    assert plain.class_weights is None
    assert weighted.class_weights == pytest.approx(
        [version.size("train") / 2 / counts[label] for label in plain.labels]
    )
    assert len(weighted.train) == len(plain.train)
    assert len(repeated.train) == 2 * max(counts.values())
    assert (repeated.validation.file, repeated.train.file) == (plain.validation.file, plain.train.file)
    assert set(repeated.train.chosen) == set(range(len(plain.train)))
