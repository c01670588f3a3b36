"""A network compiled for ONNX Runtime, that with weights of eight bits, and for OpenVINO.

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

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.models.predictor import Predictor


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


def openvino(predictor: Predictor, file: Path, name: str) -> Predictor:
    """The predictor with OpenVINO on this file for its network, on as many threads as PyTorch has.

    It computes in bfloat16 where the processor does so by itself, else in float32.
    """
    from openvino import Core

    # Threads that are pinned to cores would be so in every process of the machine, each to the same ones.
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    run = Core().compile_model(str(file), "CPU", options).create_infer_request().infer

    def ask(*, output_hidden_states: bool, **batch: torch.Tensor) -> Any:
        del output_hidden_states  # always
        said = run({key: part.numpy() for key, part in batch.items()}, share_inputs=True)
        return _said(said["logits"], said["hidden"])

    return predictor.through(ask, name)


def session(predictor: Predictor, file: Path, name: str) -> Predictor:
    """The predictor with ONNX Runtime on this file for its network, on as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    run = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run

    def ask(*, output_hidden_states: bool, **batch: torch.Tensor) -> Any:
        del output_hidden_states  # always
        return _said(*run(None, {key: part.numpy() for key, part in batch.items()}))

    return predictor.through(ask, name)


def _said(logits: NDArray[np.float32], hidden: NDArray[np.float32]) -> SimpleNamespace:
    """As a network of transformers gives them."""
    return SimpleNamespace(logits=torch.from_numpy(logits), hidden_states=(torch.from_numpy(hidden),))
