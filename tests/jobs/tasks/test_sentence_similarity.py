from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jobs import tasks
from jobs.evaluation import ranks
from jobs.spec import Spec
from jobs.targets import passage
from jobs.tasks import sentence_similarity
from jobs.tasks.task import Bounds, Output

TASK = tasks.get("sentence-similarity")
VECTORS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]])


class Net(torch.nn.Module):
    """Each token is a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.table = torch.nn.Parameter(VECTORS)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(last_hidden_state=self.table[input_ids])


class Tokenizer:
    """A digit is a token."""

    pad_token_id = 0

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(digit) for digit in text] for text in texts]}


def pairs(rows: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    known = sorted({other for _, other in rows})
    made = TASK.encode(Tokenizer(), [one for one, _ in rows], [other for _, other in rows], known, Bounds(8, 8))
    return made.batch(range(len(rows)))


def test_other_rows_texts_are_the_wrong_answers() -> None:
    losses, right = TASK.losses(Net(), pairs([("0", "1"), ("2", "3")]))
    # Cosines of input 0 to the texts 1 and 3 are 0.6 and 0.8, of input 2 they are 0.8 and 0.6.
    wanted = torch.nn.functional.cross_entropy(20 * torch.tensor([[0.6, 0.8], [0.8, 0.6]]), torch.tensor([0, 1]))
    assert losses.mean().item() == pytest.approx(wanted.item(), rel=1e-4)
    assert right.tolist() == [0, 0]


def test_the_same_text_in_another_row_is_no_wrong_answer() -> None:
    losses, right = TASK.losses(Net(), pairs([("0", "1"), ("2", "1")]))
    assert losses.tolist() == [0, 0]
    assert right.tolist() == [1, 1]


def test_padding_changes_no_embedding() -> None:
    alone, together = (
        TASK.embed(Net()(**batch), batch)[0]
        for batch in (pairs([("01", "1")]), pairs([("01", "1"), ("23012", "3")]))
        if batch.pop("labels") is not None
    )
    assert torch.allclose(alone, together)
    assert alone.norm().item() == pytest.approx(1)


def test_known_texts_are_embedded_once_a_network_and_forgotten_with_it() -> None:
    net, known = Net().requires_grad_(False), ["3", "1", "0"]
    batch = TASK.encode(Tokenizer(), ["0", "2"], None, known, Bounds(8, 8)).batch([0, 1])
    first = TASK.answer(net, Tokenizer(), known, batch, Bounds(8, 8))
    assert [output.label for output in first] == ["0", "1"]
    assert list(first[0].scores) == ["0", "3", "1"]
    assert sum(first[0].scores.values()) == pytest.approx(1)
    calls = net.calls
    TASK.answer(net, Tokenizer(), known, batch, Bounds(8, 8))
    assert net.calls == calls + 1
    TASK.answer(net, Tokenizer(), known[:2], batch, Bounds(8, 8))  # others can be found now
    assert net.calls == calls + 3
    held = len(sentence_similarity._known)
    del net
    gc.collect()
    assert len(sentence_similarity._known) == held - 1


def test_ranks_count_from_the_nearest() -> None:
    told = [Output("a", 0.5, {"a": 0.5, "b": 0.3, "c": 0.2}, np.zeros(2, np.float32))] * 4
    found = ranks.ranks(["a", "b", "c", "d"], told)
    assert found == [1, 2, 3, 0]
    spec = Spec.model_validate({"name": "x", "base_model": "m", "data": {"source": "a"}}).evaluation
    scores = ranks.score(np.array(found), spec)
    assert scores["recall_at_10"].value == 0.75
    assert scores["mrr_at_10"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert scores["mrr_at_10"].low < scores["mrr_at_10"].value < scores["mrr_at_10"].high


def test_a_true_label_is_one_of_the_known_texts() -> None:
    assert passage.fault("a", ["a", "b"]) == ""
    assert passage.fault("c", ["a", "b"]) == "'c' is none of the 2 texts that can be found"
