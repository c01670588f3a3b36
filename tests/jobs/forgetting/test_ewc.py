from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from jobs.data import preparation
from jobs.forgetting import ewc
from jobs.forgetting.ewc import Consolidation, Hold
from jobs.models import model
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import batches, loop, train
from jobs.training.batches import Encoded
from jobs.training.columns import Ragged
from jobs.training.loop import Work
from tests import tiny

LABELS = ("negative", "positive")


def encoded(spec: Spec, count: int = 6) -> Encoded:
    texts = [row["input"] for row in tiny.rows(count, seed=3)]
    return batches.encode(tiny.TASK.processor(spec.base_model), texts, [0] * count, 32)


class Logistic(torch.nn.Module):
    """Scores of two labels from the count of each token id below 3."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(3, 2, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        counts = torch.nn.functional.one_hot(input_ids, 3) * attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=self.scores(counts.sum(1).float()))


def test_fisher_of_a_logistic_regression_is_the_textbook_one() -> None:
    net = Logistic()
    rows = Encoded(Ragged.of([[0, 1], [1, 1, 2], [2]]), np.zeros(3, np.int64), pad=0)
    counts = torch.tensor([[1.0, 1, 0], [0, 2, 1], [0, 0, 1]])
    shares = torch.softmax(net.scores(counts), -1).detach()
    (found,) = ewc.fisher(net, [net.scores.weight], rows)
    # d log p(y|x) / d w_kj = (1[k = y] - p_k) x_j, squared and averaged over y ~ p: p_k (1 - p_k) x_j^2
    expected = torch.einsum("rk,rj->kj", shares * (1 - shares), counts.square()) / 3
    torch.testing.assert_close(found, expected)


def test_fisher_of_a_model_is_the_mean_squared_gradient_of_its_log_likelihood(spec: Spec) -> None:
    net, rows = model.trainable(spec, LABELS).eval(), encoded(spec)
    weights = [w for w in net.parameters() if w.requires_grad]
    expected = [torch.zeros_like(w) for w in weights]
    for row in range(len(rows)):
        for label in range(2):
            net.zero_grad()
            inputs = rows.batch([row]) | {"labels": torch.tensor([label])}
            loss = net(**inputs).loss
            loss.backward()
            for total, weight in zip(expected, weights, strict=True):
                total.add_(torch.exp(-loss.detach()) * weight.grad.square() / len(rows))
    net.zero_grad()
    for found, wanted in zip(ewc.fisher(net, weights, rows), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-9)
    assert all(weight.grad is None for weight in weights)


def test_the_penalty_is_half_the_strength_times_weighed_squares() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    held = Hold([weight], [torch.tensor([3.0, 0.0])], strength=4.0)
    assert held.penalty().item() == 0
    with torch.no_grad():
        weight += torch.tensor([0.5, 9.0])
    penalty = held.penalty()
    penalty.backward()
    assert penalty.item() == pytest.approx(4 / 2 * 3 * 0.25)
    torch.testing.assert_close(weight.grad, torch.tensor([4 * 3 * 0.5, 0.0]))


def start_of(spec: Spec, job: Work, folder: Path) -> Work:
    """The same work, going on from a model on disk."""
    model.save(model.trainable(spec, job.labels), None, folder)
    return replace(job, start=str(folder))


def trained(job: Work, folder: Path) -> dict[str, torch.Tensor]:
    """Weights after one process has trained to the end."""

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        net = model.load(checkpoint, tiny.TASK, job.spec.base_model, job.labels, train=True)
        last.update({n: p.detach().clone() for n, p in net.named_parameters() if p.requires_grad})

    last: dict[str, torch.Tensor] = {}
    loop.run(job, rank=0, world=1, threads=1, report=report)
    return last


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # as DeepSpeed's ZeRO is first imported
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_strong_hold_keeps_what_matters_and_none_changes_nothing(
    process_group: None, spec: Spec, place: Place, tmp_path: Path, stage: int
) -> None:
    spec = spec.with_values(
        {"scaling.workers": 1, "training.epochs": 2, "training.zero_stage": stage, "method.dropout": 0}
    )
    job = start_of(spec, train.work(spec, preparation.prepare(spec, place.storage), place.storage), tmp_path / "start")
    net = model.load(Path(job.start or ""), tiny.TASK, spec.base_model, job.labels, train=True)
    names = [name for name, weight in net.named_parameters() if weight.requires_grad]
    held = ewc.hold(net, job.train.only(range(20)).open(), 1.0)

    def moved(consolidation: Consolidation | None) -> tuple[float, dict[str, torch.Tensor]]:
        after = trained(replace(job, consolidation=consolidation), tmp_path)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if name in names:
                    weight.copy_(after[name])
        return held.penalty().item(), after

    free, plain = moved(None)
    unheld, same = moved(Consolidation(0.0, job.train.only(range(20))))
    tight, _ = moved(Consolidation(1e6, job.train.only(range(20))))
    assert all(torch.equal(plain[name], same[name]) for name in names)
    assert free == unheld > 0
    assert tight < free / 50
