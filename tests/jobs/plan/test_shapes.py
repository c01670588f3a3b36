from __future__ import annotations

import pytest
import torch

from jobs.models import model
from jobs.plan import shapes
from jobs.spec import Spec

LABELS = ("a", "b")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_meta_counts_what_the_real_model_has(spec: Spec, method: str) -> None:
    made = spec.with_values({"method.name": method})
    found = shapes.sizes(shapes.on_meta(made, LABELS))
    net = model.trainable(made, ["a", "b"])
    assert (found.trainable, found.parameters) == model.trainable_share(net)
    frozen = [m.weight for m in net.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad]
    assert found.quantisable == sum(w.numel() for w in frozen)
    assert (found.quantisable > 0) == (method == "lora")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_meta_counts_the_activations_that_the_real_model_keeps(spec: Spec, method: str) -> None:
    made = spec.with_values({"method.name": method})
    net = model.trainable(made, ["a", "b"]).train()
    weights = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(input_ids=torch.zeros((8, 32), dtype=torch.long), labels=torch.zeros(8, dtype=torch.long))
    measured = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)
    made = made.with_values({"training.micro_batch_size": 8, "training.max_length": 32})
    assert shapes.activations(shapes.on_meta(made, LABELS), made) == pytest.approx(measured, rel=0.25)


def test_activations_grow_with_rows_and_tokens(spec: Spec) -> None:
    net = shapes.on_meta(spec, LABELS)

    def bytes_of(rows: int, tokens: int) -> int:
        values = {"training.micro_batch_size": rows, "training.max_length": tokens, "training.global_batch_size": 16}
        return shapes.activations(net, spec.with_values(values))

    small = bytes_of(4, 16)
    assert bytes_of(8, 16) == pytest.approx(2 * small, rel=0.1)
    assert bytes_of(4, 32) > 2 * small
