from __future__ import annotations

import pytest

from jobs.plan.advice import advise


@pytest.mark.parametrize(
    ("examples", "method", "said", "warned"),
    [
        (99, "lora", "for a prompt, not for training", True),
        (100, "lora", "LoRA or augmentation is the way", False),
        (999, "full", "full fine-tuning may overfit", True),
        (1_000, "full", "are for fine-tuning", False),
        (10_000, "lora", "are for fine-tuning", False),
        (10_001, "lora", "too few to train from scratch", False),
        (100_001, "lora", "from scratch only where no base model", False),
    ],
)
def test_examples_point_a_way(examples: int, method: str, said: str, warned: bool) -> None:
    (advice,) = advise(examples, 22_000_000, method)
    assert said in advice.text
    assert advice.warning is warned


@pytest.mark.parametrize(
    ("examples", "billions", "warned"),
    [(1_000, 1, True), (1_001, 1, False), (1_001, 6.9, False), (10_000, 7, True), (10_001, 7, False)],
)
def test_a_large_base_model_wants_more_examples(examples: int, billions: float, warned: bool) -> None:
    _, advice = advise(examples, round(billions * 1e9), "lora")
    assert advice.text.startswith(f"a base model of {billions:.1f}B parameters wants more than")
    assert advice.warning is warned
