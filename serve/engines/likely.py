"""How likely a model finds the golden answers, which is what another engine in half precision is judged by.

Where two tokens are nearly as likely, half precision may take the other, and the text goes on from there: what can be
compared is not what each would write, but how likely both find what the trainer wrote, token by token after its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.models.predictor import Predictor
from jobs.tasks import writing

from .child import NAME, Child
from .parity import Golden

Chances = list[list[float]]
"""Logarithms of the chances of each row's tokens but the first."""

_HALF = {"float16": torch.float16}  # what else vLLM may take is bfloat16, or as exact


@dataclass(frozen=True)
class Answers:
    """Each row's tokens are an input's and those of its golden answer but the last, where vLLM writes one."""

    rows: list[list[int]]
    begins: list[int]
    """Where the answer does."""
    exact: Chances

    @classmethod
    def of(cls, plain: Predictor, golden: Golden) -> Answers:
        prompts = plain.prompts(golden.inputs)
        ends = writing.endings(plain.tokenizer, golden.labels, plain.bounds.answer)
        rows = [[*prompt, *ends[at][:-1].tolist()] for at, prompt in enumerate(prompts)]
        return cls(rows, [len(prompt) for prompt in prompts], by_torch(plain.net, rows))

    def differences(self, found: Chances) -> list[NDArray[np.float64]]:
        """Of each answer's tokens, from the exact ones."""
        return [
            np.abs(np.subtract(one, other)[at - 1 :])
            for one, other, at in zip(found, self.exact, self.begins, strict=True)
        ]

    def apart(self, found: Chances) -> float:
        """The mean difference of a token; 0 of answers without any."""
        each = np.concatenate([np.zeros(0), *self.differences(found)])
        return float(each.mean()) if len(each) else 0.0


def by_torch(net: Any, rows: Sequence[Sequence[int]]) -> Chances:
    return [writing.chances(net, row) for row in rows]


def rounded(net: Any, rows: Sequence[Sequence[int]], dtype: str) -> Chances:
    """By PyTorch in half precision, on a copy of the network that is gone afterwards, from a GPU's memory too."""
    found = by_torch(copy.deepcopy(net).to(_HALF.get(dtype, torch.bfloat16)), rows)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def by_vllm(child: Child, rows: Sequence[Sequence[int]]) -> Chances:
    asked = {"model": NAME, "prompt": rows, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    choices = child.complete(asked | {"return_token_ids": True, "return_tokens_as_token_ids": True})
    return [
        [known[str(token)]["logprob"] for known, token in zip(choice["prompt_logprobs"][1:], row[1:], strict=True)]
        for choice, row in zip(choices, rows, strict=True)
    ]
