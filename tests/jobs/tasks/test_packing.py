from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from cluster.errors import TrainingError
from jobs import tasks
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.tasks import writing
from jobs.tasks.writing import SKIPPED, Sequences
from jobs.training import batches, loop, train
from jobs.training.columns import Ragged

from . import projects

TASK = tasks.get("text-generation")
SIZES = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def rows(most: int | None) -> Sequences:
    draw = torch.Generator().manual_seed(0)

    def tokens(lengths: list[int]) -> list[list[int]]:
        return [torch.randint(1, 40, (size,), generator=draw).tolist() for size in lengths]

    ids, targets = Ragged.of(tokens([5, 1, 9, 3, 2])), Ragged.of(tokens([3, 2, 1, 4, 2]))
    return Sequences(ids, targets, 0, joint=True, most=most)


def models() -> list[Any]:
    torch.manual_seed(0)
    made = [
        LlamaForCausalLM(LlamaConfig(**SIZES)),
        MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=4)),
        GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=64)),
    ]
    return [net.eval() for net in made]


@pytest.mark.parametrize("net", models(), ids=lambda net: net.config.model_type)
def test_packed_losses_and_gradients_are_those_of_rows_apart(net: Any) -> None:
    found = []
    for data in (rows(None), rows(16)):
        net.zero_grad()
        losses, right = TASK.losses(net, data.batch([4, 0, 2, 1, 3]))
        losses.mean().backward()
        found.append((losses, right, [weight.grad for weight in net.parameters()]))
    (plain, right, slopes), (packed, also, theirs) = found
    torch.testing.assert_close(packed, plain)
    assert also.tolist() == right.tolist()
    for one, other in zip(slopes, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    writing.require_apart(net, rows(16))


def test_a_packed_row_says_where_each_row_begins() -> None:
    batch = Sequences(Ragged.of([[7, 8], [9]]), Ragged.of([[1], [2, 3]]), 0, joint=True, most=6).batch([0, 1])
    assert batch["input_ids"].tolist() == [[7, 8, 1, 9, 2, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch["labels"].tolist() == [[SKIPPED, SKIPPED, 1, SKIPPED, 2, 3]]
    assert batch["rows"].tolist() == [[0, 0, 0, 1, 1, 1]]


class Across(torch.nn.Module):
    """A model that reads whatever stands before."""

    config = SimpleNamespace(model_type="leaky")

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(40, 40)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids).cumsum(1))


def test_a_model_that_reads_across_rows_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"data\.packing: a leaky model reads across packed rows"):
        writing.require_apart(Across(), rows(16))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(50, 120))
def test_every_row_is_packed_once_and_never_with_more_filling(lengths: list[int], most: int) -> None:
    parts = batches.packed(lengths, most)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    longest = max(sum(lengths[row] for row in part) for part in parts)
    assert longest <= most
    assert len(parts) * longest <= len(lengths) * max(lengths)


@pytest.mark.long
def test_a_packed_training_has_the_losses_of_one_that_is_not(place: Place, process_group: None, tmp_path: Path) -> None:
    spec = projects.spec("text-generation", tmp_path / "project", 120, training__epochs=2)
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    curves = []
    for each in (job, job.under(spec.with_values({"data.packing": True}))):
        curve: list[dict[str, Any]] = []
        loop.run(each, rank=0, world=1, threads=1, report=lambda metrics, _, curve=curve: curve.append(metrics))
        curves.append(curve)
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert [one[name] for one in curves[1]] == pytest.approx([one[name] for one in curves[0]], rel=1e-3), name
