"""How large a model is, told by its own shapes on torch's meta device: nothing is loaded and nothing is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import tasks
from jobs.models import model
from jobs.spec import Spec


@dataclass(frozen=True)
class Sizes:
    """Counts of weights. `quantisable` are those that QLoRA would hold in 4 bits: frozen ones of linear layers."""

    parameters: int
    trainable: int
    quantisable: int


def on_meta(spec: Spec, labels: Sequence[str], method: str | None = None) -> Any:
    """The spec's model without its weights; `method` is the spec's own when not given.

    Raises SpecError when the model has fewer positions than `training.max_length`.
    """
    import torch
    from transformers import AutoConfig

    with torch.device("meta"):
        task = tasks.get(spec.task)
        config = AutoConfig.from_pretrained(model.locate(spec.base_model), **task.options(labels))
        model.check_length(config, spec)
        net = task.auto().from_config(config)
        chosen = spec.method.model_copy(update={"name": method or spec.method.name})
        return net if chosen.name == "full" else model.with_adapter(net, chosen, task)


def sizes(net: Any) -> Sizes:
    import torch

    trainable, parameters = model.trainable_share(net)
    linear = {id(m.weight): m.weight for m in net.modules() if isinstance(m, torch.nn.Linear)}
    return Sizes(parameters, trainable, sum(w.numel() for w in linear.values() if not w.requires_grad))


def activations(net: Any, spec: Spec) -> int:
    """Bytes that autograd keeps between the forward and the backward pass over a micro-batch of the longest inputs.

    Counted in the model's own precision by saved-tensor hooks, each storage once; weights are not among them.
    """
    if spec.training.activation_checkpointing and net.supports_gradient_checkpointing:
        whole = activations(net, spec.with_values({"training.activation_checkpointing": False}))
        layers = max(1, getattr(net.config, "num_hidden_layers", 1))
        # What is kept between layers, and of one of them all: it is computed again when its gradients are.
        model.checkpointing(net)
        between = _kept(net, spec)
        net.activation_checkpointing_disable()
        return between + (whole - between) // layers
    return _kept(net, spec)


def _kept(net: Any, spec: Spec) -> int:
    import torch

    weights = {w.untyped_storage()._cdata for w in (*net.parameters(), *net.buffers())}  # noqa: SLF001 - its identity
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # noqa: SLF001
            kept[storage._cdata] = storage  # noqa: SLF001 - held, so that no other gets its identity
        return tensor

    net.train()
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task = tasks.get(spec.task)
        task.losses(net, task.blank(net.config, spec.training.micro_batch_size, spec.bounds))
    return sum(int(storage.nbytes()) for storage in kept.values())


def device_bytes(spec: Spec) -> int:
    """Memory of one worker's device: of the GPU where one is used and here, else this machine's by its workers."""
    import torch

    if spec.scaling.use_gpu and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // spec.scaling.most_workers
