"""Elastic weight consolidation (Kirkpatrick et al. 2017): weights that mattered to the old rows stay where they were.

The penalty is strength / 2 * sum_i F_i (w_i - w0_i)^2 over the trainable weights, with F the diagonal of the Fisher
information at w0. It needs whole weights on every rank, so ZeRO stage 3 is refused where a run is planned (`train.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.tasks.task import Encoded
from jobs.training.tokens import Rows

if TYPE_CHECKING:
    import torch

_NEGLIGIBLE = 1e-3  # a label of less probability adds nothing that shows and costs a backward pass


@dataclass(frozen=True)
class Consolidation:
    """What a run needs for it: the penalty's strength (lambda) and old rows to estimate the Fisher information on."""

    strength: float
    rows: Rows


class Hold:
    """Weights, where they were, and how much each of them mattered. `fisher[i]` has the shape of `weights[i]`."""

    def __init__(self, weights: Sequence[torch.Tensor], fisher: Sequence[torch.Tensor], strength: float) -> None:
        self.strength = strength
        self._weights, self._fisher = list(weights), list(fisher)
        self._start = [w.detach().float().clone() for w in weights]

    def penalty(self) -> torch.Tensor:
        """A scalar to add to the loss; 0, with no gradient, while the weights are where they were."""
        import torch

        moved = zip(self._weights, self._fisher, self._start, strict=True)
        parts = [(f * (w.float() - start).square()).sum() for w, f, start in moved]
        return self.strength / 2 * torch.stack(parts).sum()


def hold(net: Any, data: Encoded, strength: float) -> Hold:
    """Holds the trainable weights of `net` as they are now; the Fisher information is that of `data`."""
    weights = [w for w in net.parameters() if w.requires_grad]
    return Hold(weights, fisher(net, weights, data), strength)


def fisher(net: Any, weights: Sequence[torch.Tensor], data: Encoded) -> list[torch.Tensor]:
    """The diagonal Fisher information of each weight: the mean over rows of the squared gradient of log p(y | row).

    In expectation over the model's own p(y | row), so that the true labels play no part: squared gradients at those
    would be the "empirical Fisher", which misleads (Kunstner et al. 2019). One row at a time; `net` is put in
    evaluation mode.
    """
    import torch

    net.eval()
    sums = [torch.zeros_like(w, dtype=torch.float32) for w in weights]
    for row in range(len(data)):
        inputs = {k: v.to(weights[0].device) for k, v in data.batch([row]).items() if k != "labels"}
        scores = torch.log_softmax(net(**inputs).logits[0].float(), dim=-1)
        for score in scores:
            share = score.detach().exp()
            if share > _NEGLIGIBLE:
                _add_squares(sums, torch.autograd.grad(score, weights, retain_graph=True, allow_unused=True), share)
    return [total / len(data) for total in sums]


def _add_squares(sums: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None], share: torch.Tensor) -> None:
    for total, gradient in zip(sums, gradients, strict=True):
        if gradient is not None:  # a weight that the answer does not depend on
            total.add_(share * gradient.float().square())
