"""A published model version, loaded for inference: texts in, labels with scores and an embedding out.

Evaluation and serving both answer through it, so what was measured is what is served.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.explain import explain
from jobs.explain.explain import Explanation

from . import batches, model


@dataclass(frozen=True)
class Output:
    """`scores` are softmax probabilities by label; `embedding`, shape (hidden,), is the mean of the last layer."""

    label: str
    confidence: float
    scores: dict[str, float]
    embedding: NDArray[np.float32]


class Predictor:
    """Answers in batches of like length. One caller at a time."""

    def __init__(self, net: Any, tokenizer: Any, labels: Sequence[str], max_length: int, batch_size: int = 32) -> None:
        self.labels = tuple(labels)
        self._net, self._tokenizer = net.eval(), tokenizer
        self._max_length, self._batch_size = max_length, batch_size
        self._device = next(net.parameters()).device

    @classmethod
    def load(cls, folder: Path, *, merge: bool = True) -> Predictor:
        """From a model version's folder (layout in `publish.py`)."""
        manifest = json.loads((folder / "manifest.json").read_text())
        net = model.load(folder, manifest["base_model"], manifest["labels"], merge=merge)
        if torch.cuda.is_available():
            net = net.cuda()
        max_length = manifest["spec"]["training"]["max_length"]
        return cls(net, model.tokenizer(folder / "tokenizer"), manifest["labels"], max_length)

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        """One Output per text, in order."""
        data = batches.encode(self._tokenizer, texts, [0] * len(texts), self._max_length)
        order = np.argsort([len(ids) for ids in data.ids], kind="stable")
        outputs: list[Output | None] = [None] * len(texts)
        for at in range(0, len(order), self._batch_size):
            rows = order[at : at + self._batch_size]
            for row, output in zip(rows, self._forward(data.batch(rows)), strict=True):
                outputs[row] = output
        return [output for output in outputs if output is not None]

    @property
    def weight_bytes(self) -> int:
        """What the parameters take in memory."""
        return sum(p.numel() * p.element_size() for p in self._net.parameters())

    def explain(self, text: str, label: str | None, steps: int) -> Explanation:
        """Which words speak for `label`, the predicted one when None. Safe beside a call. Raises UserError."""
        return explain.explain(self._net, self._tokenizer, self.labels, self._max_length, text, label, steps)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is untyped here
    def _forward(self, batch: dict[str, torch.Tensor]) -> list[Output]:
        tokens, mask = batch["input_ids"].to(self._device), batch["attention_mask"].to(self._device)
        answer = self._net(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        shares = torch.softmax(answer.logits.float(), dim=-1).cpu().numpy()
        weight = mask.unsqueeze(-1)
        hidden = answer.hidden_states[-1].float()
        embeddings = ((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy()
        return [self._output(row, embedding) for row, embedding in zip(shares, embeddings, strict=True)]

    def _output(self, shares: NDArray[np.float32], embedding: NDArray[np.float32]) -> Output:
        best = int(shares.argmax())
        scores = {label: float(share) for label, share in zip(self.labels, shares, strict=True)}
        return Output(self.labels[best], float(shares[best]), scores, embedding)
