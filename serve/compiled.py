"""Engines: the model as PyTorch runs it, compiled for ONNX Runtime, and that with weights of eight bits.

A compiled model is made when a version is loaded, which takes seconds, and lives in memory beside PyTorch's, which goes
on to explain. It is taken only where it answers as PyTorch does: fp32 to a thousandth of a probability, int8 where its
accuracy on the version's own test rows holds. Made for tasks whose answer is one pass through the model; texts are
written by PyTorch alone.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pandas as pd
import torch

from cluster.errors import ClusterError
from jobs.predictor import Predictor

log = logging.getLogger(__name__)

Kind = Literal["torch", "onnx", "onnx-int8", "auto"]

TORCH, ONNX, INT8 = "torch", "onnx", "onnx-int8"
TOLERANCE: Mapping[str, float] = {TORCH: 1e-3, ONNX: 1e-3, INT8: 0.1}
"""Largest difference of a probability from the trainer's, by engine."""
MOST_LOST = 0.005
"""Accuracy that eight bits may lose on the version's test rows."""
_ROWS = 500  # of these, at most
_REPEATS = 5


@dataclass(frozen=True)
class Measured:
    """One engine on a version's golden inputs: `seconds` for all of them at once and the first alone, the best of five.

    `accuracy` is on the version's test rows, None where it was not asked for.
    """

    engine: str
    seconds: float
    accuracy: float | None = None


def loader(kind: Kind) -> Callable[[Path], Predictor]:
    """What loads a version's folder into an engine of this kind."""
    return Predictor.load if kind == TORCH else lambda folder: _loaded(folder, kind)


def _loaded(folder: Path, kind: Kind) -> Predictor:
    """Raises ClusterError where the engine that was asked for cannot be had."""
    plain = Predictor.load(folder)
    golden = json.loads((folder / "golden.json").read_text())["inputs"]
    if not plain.compilable:
        if kind == "auto":
            return plain
        raise ClusterError(f"engine {kind} is not for tasks that write texts", mend="serving.engine: torch")
    if torch.cuda.is_available():
        if kind == "auto":
            return plain
        raise ClusterError(f"engine {kind} runs on CPUs", mend="serving.engine: torch")
    with tempfile.TemporaryDirectory() as made:
        file = exported(plain, golden, Path(made))
        if kind == ONNX:
            return session(plain, file, ONNX)
        small = session(plain, quantised(file), INT8)
        whole = session(plain, file, ONNX)
    rows = pd.read_parquet(folder / "reference.parquet", columns=["input", "true", "label"])
    rows = rows if len(rows) <= _ROWS else rows.sample(_ROWS, random_state=0)
    before, after = float((rows["true"] == rows["label"]).mean()), _accuracy(small, rows)
    holds = after >= before - MOST_LOST
    if kind == INT8:
        if not holds:
            raise ClusterError(
                f"eight bits cost accuracy: {after:.3f}, {before:.3f} before", mend="serving.engine: onnx"
            )
        return small
    found = [_measured(one, golden) for one in (plain, whole, *([small] if holds else []))]
    log.info("engines: %s; int8 accuracy %.3f, %.3f before", found, after, before)
    best = min(found, key=lambda one: one.seconds).engine
    return next(one for one in (plain, whole, small) if one.engine == best)


def exported(predictor: Predictor, inputs: Sequence[str], folder: Path) -> Path:
    """The model as ONNX, in `folder`: the predictor's own network, for batches of any size and length."""
    asked: dict[str, torch.Tensor] = {}

    def record(**batch: Any) -> Any:
        asked.update({name: part for name, part in batch.items() if isinstance(part, torch.Tensor)})
        return predictor.net(**batch)

    predictor.through(record, TORCH)(inputs)
    axes = {name: {0: "rows"} | ({1: "tokens"} if part.ndim == 2 else {}) for name, part in asked.items()}  # noqa: PLR2004
    made = _Exportable(predictor.net, list(asked)).eval()  # or the export would put it back into training afterwards
    file = folder / "model.onnx"
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


def quantised(file: Path) -> Path:
    """The same with linear layers of eight bits, scaled as they run (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = file.with_name("int8.onnx")
    logging.disable(logging.WARNING)  # it recommends a step that fuses what ONNX Runtime fuses anyway
    try:
        quantize_dynamic(file, made, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})
    finally:
        logging.disable(logging.NOTSET)
    return made


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


def _accuracy(predictor: Predictor, rows: pd.DataFrame) -> float:
    said = [output.label for output in predictor(list(rows["input"]))]
    return float((rows["true"] == said).mean())


def _measured(predictor: Predictor, inputs: Sequence[str]) -> Measured:
    def seconds(given: Sequence[str]) -> float:
        began = time.perf_counter()
        predictor(given)
        return time.perf_counter() - began

    times = (seconds(inputs) + seconds(inputs[:1]) for _ in range(_REPEATS))
    return Measured(predictor.engine, min(times))
