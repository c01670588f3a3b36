from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cluster.errors import DataError
from jobs import tasks
from jobs.data import preparation
from jobs.models import model
from jobs.spec import Spec
from jobs.targets import preference
from jobs.tasks import text_generation

from . import projects

TASK = tasks.get("preference-tuning")
PAIRS = [("1 main street", "number then street", "other"), ("unit 4", "other then number", "street then street")]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return projects.spec("preference-tuning", tmp_path_factory.mktemp("dpo") / "project", 60, training__beta=0.3)


def pair(better: str, worse: str) -> str:
    return json.dumps({"chosen": better, "rejected": worse})


def batch(spec: Spec) -> dict[str, Any]:
    inputs, targets = [given for given, _, _ in PAIRS], [pair(better, worse) for _, better, worse in PAIRS]
    return TASK.encode(TASK.processor(spec.base_model), inputs, targets, [], spec.bounds).batch([0, 1])


def chance(net: Any, spec: Spec, given: str, answer: str) -> float:
    """The log probability of an answer and its end, a token at a time."""
    words = TASK.processor(spec.base_model)
    ids, total = text_generation.prompt(words, given), 0.0
    for token in [*words(answer, add_special_tokens=False)["input_ids"], words.eos_token_id]:
        total += float(net(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
        ids = [*ids, token]
    return total


def test_a_new_adapter_prefers_nothing(spec: Spec) -> None:
    losses, right = TASK.losses(model.trainable(spec, ()).eval(), batch(spec))
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    assert right.tolist() == [0, 0]


@torch.no_grad()
def test_the_loss_is_the_papers(spec: Spec) -> None:
    net = model.trainable(spec, ()).eval()
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    losses, right = TASK.losses(net, batch(spec))
    for at, (given, better, worse) in enumerate(PAIRS):
        policy = [chance(net, spec, given, answer) for answer in (better, worse)]
        with net.disable_adapter():
            reference = [chance(net, spec, given, answer) for answer in (better, worse)]
        margin = (policy[0] - reference[0]) - (policy[1] - reference[1])
        # Rafailov et al. 2023, equation 7.
        assert losses[at].item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.3 * margin))), rel=1e-4)
        assert bool(right[at]) == (margin > 0)


def test_only_the_adapter_learns_and_the_net_is_left_as_it_was(spec: Spec) -> None:
    net = model.trainable(spec, ()).train()
    losses, _ = TASK.losses(net, batch(spec))
    losses.mean().backward()
    assert net.training
    assert {name.split(".")[-3] for name, w in net.named_parameters() if w.grad is not None} <= {"lora_A", "lora_B"}
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in net.parameters())


def test_chat_messages_in_three_columns_are_read(spec: Spec, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"question {at}"}],
            "chosen": [{"role": "assistant", "content": f"yes {at}"}],
            "rejected": [{"role": "assistant", "content": f"no {at}"}],
        }
        for at in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    data = {"source": str(tmp_path / "pairs.jsonl"), "input": "prompt", "label": "chosen", "rejected": "rejected"}
    read = preparation.check(spec.with_values({f"data.{key}": value for key, value in data.items()}))
    first = read.set_index("row").loc[1]
    assert text_generation.messages(first["input"]) == rows[0]["prompt"]
    assert preference.pair(first["label"]) == ("yes 0", "no 0")


def test_what_is_no_pair_is_named_by_row(spec: Spec, tmp_path: Path) -> None:
    made = [pair("a", "b"), "just one", pair("same", "same"), pair("", "b")]
    pd.DataFrame({"text": list("wxyz"), "label": made}).to_csv(tmp_path / "pairs.csv", index=False)
    with pytest.raises(DataError) as caught:
        preparation.check(spec.with_values({"data.source": str(tmp_path / "pairs.csv")}))
    said = str(caught.value)
    assert 'row 2 column \'label\': is no pair of answers, such as {"chosen": "...", "rejected": "..."}' in said
    assert "row 3 column 'label': has the same answer twice" in said
    assert "row 4" not in said, "an empty answer is a row without a label"


def test_an_answer_is_held_to_both() -> None:
    true = [pair("the cat sat", "a dog ran"), pair("blue", "red")]
    metric = preference.METRICS["nearer_chosen"]

    def score(*answers: str) -> float:
        return float(metric.value(metric.statistics(true, [list(answers)])[0].sum(0)))

    assert score("the cat sits", "blue") == 1
    assert score("a dog", "red") == 0
    assert score("the cat sits", "") == 0.75  # as near to both
    assert score(*true) == 1, "a pair stands for its better answer"
    assert preference.fault(true[0], []) == ""
    assert "is no pair" in preference.fault("blue", [])
    assert preference.watched([true[0], "one two"], []).iloc[:, 0].tolist() == [3, 2]
