"""A network compiled for ONNX Runtime, and that with weights of eight bits.

Made for tasks whose answer is one pass through the model. PyTorch's network stays in memory beside it and goes on to
explain. Whether what was made answers alike is for `choice.py` to find out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from jobs.predictor import Predictor


def exported(predictor: Predictor, inputs: Sequence[str], file: Path) -> Path:
    """The model as ONNX, in `file`: the predictor's own network, for batches of any size and length."""
    asked: dict[str, torch.Tensor] = {}

    def record(**batch: Any) -> Any:
        asked.update({name: part for name, part in batch.items() if isinstance(part, torch.Tensor)})
        return predictor.net(**batch)

    predictor.through(record, predictor.engine)(inputs)
    axes = {name: {0: "rows"} | ({1: "tokens"} if part.ndim == 2 else {}) for name, part in asked.items()}  # noqa: PLR2004
    made = _Exportable(predictor.net, list(asked)).eval()  # or the export would put it back into training afterwards
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter is PyTorch's older one; the newer takes three times as long for the same model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            made,
            tuple(asked.values()),
            str(file),
            input_names=list(asked),
            output_names=["logits", "hidden"],
            dynamic_axes=axes | {"logits": {0: "rows"}, "hidden": {0: "rows", 1: "tokens"}},
            dynamo=False,
        )
    return file


def quantised(file: Path, made: Path) -> Path:
    """The same, in `made`, with linear layers of eight bits, scaled as they run (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _without_advice():
        quantize_dynamic(file, made, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})
    return made


@contextmanager
def _without_advice() -> Iterator[None]:
    """It recommends a step that fuses what ONNX Runtime fuses anyway. All other lines go on: requests are answered."""

    def other(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


class _Exportable(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Takes its parts by place and gives logits and last layer, as an ONNX graph does."""

    def __init__(self, net: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, *parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = self.net(**dict(zip(self.names, parts, strict=True)), output_hidden_states=True)
        return said.logits, said.hidden_states[-1]


def session(predictor: Predictor, file: Path, name: str) -> Predictor:
    """The predictor with ONNX Runtime on this file for its network, on as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    run = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run

    def ask(*, output_hidden_states: bool, **batch: torch.Tensor) -> Any:
        del output_hidden_states  # always
        logits, hidden = run(None, {key: part.numpy() for key, part in batch.items()})
        return SimpleNamespace(logits=torch.from_numpy(logits), hidden_states=(torch.from_numpy(hidden),))

    return predictor.through(ask, name)
