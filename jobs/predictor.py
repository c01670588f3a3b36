"""A published model version, loaded for inference: inputs in, answers with scores and an embedding out.

Evaluation and serving both answer through it, so what was measured is what is served.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jobs.explain.explanation import Explanation

from . import batches, model, tasks
from .spec import Spec
from .targets import passage, preference, text
from .tasks.task import Bounds, Output, Piece, Sampling, Task

if TYPE_CHECKING:
    from .adapters import Base

_NOT_ONE_PASS = {text.NAME, preference.NAME, passage.NAME}


def one_pass(task: Task) -> bool:
    """Whether an answer is one pass through the network with the input, and nothing else is asked of it."""
    return task.targets.NAME not in _NOT_ONE_PASS


_CALL = {"cpu": 24.0}
"""Tokens that cost as much as a pass itself, by device. Elsewhere a few rows cost no more than one."""


class Predictor:
    """Answers in batches of like length. One caller at a time."""

    def __init__(
        self, net: Any, task: Task, processor: Any, labels: Sequence[str], bounds: Bounds, batch_size: int = 32
    ) -> None:
        self.labels, self.engine = tuple(labels), "torch"
        self.net, self._task, self._processor = net.eval(), task, processor
        self._ask: Callable[..., Any] = self.net
        self.bounds, self._batch_size = bounds, batch_size
        self.base: Base | None = None  # that it shares with others
        self._device = next(net.parameters()).device

    @classmethod
    def load(cls, folder: Path, *, merge: bool = True) -> Predictor:
        """From a model version's folder (layout in `publish.py`)."""

        def loaded(task: Task, base_model: str, labels: Sequence[str]) -> Any:
            net = model.load(folder, task, base_model, labels, merge=merge)
            return net.cuda() if torch.cuda.is_available() else net

        return cls.around(folder, loaded)

    @classmethod
    def around(
        cls,
        folder: Path,
        load: Callable[[Task, str, Sequence[str]], Any],
        processor: Callable[[Task, Path, Bounds], Any] | None = None,
    ) -> Predictor:
        """What a version's folder describes, with the network that `load` gives for task, base model and labels."""
        manifest = json.loads((folder / "manifest.json").read_text())
        task = tasks.get(manifest["task"])
        net = load(task, manifest["base_model"], manifest["labels"])
        bounds = Spec.model_validate(manifest["spec"]).bounds  # with defaults for what an older spec did not have
        place = folder / "processor"
        made = task.processor(place) if processor is None else processor(task, place, bounds)
        return cls(net, task, made, manifest["labels"], bounds)

    def __call__(self, inputs: Sequence[str]) -> list[Output]:
        """One Output an input, in order."""
        outputs: list[Output | None] = [None] * len(inputs)
        for rows, batch in self.batches(inputs):
            for row, output in zip(rows, self.read(self._ask, batch), strict=True):
                outputs[row] = output
        return [output for output in outputs if output is not None]

    def batches(self, inputs: Sequence[str]) -> Iterator[tuple[Sequence[int], dict[str, torch.Tensor]]]:
        """Numbers of inputs of like length, and what the network takes for them."""
        data = self._task.encode(self._processor, inputs, None, self.labels, self.bounds)
        for rows in batches.alike(data.lengths, self._batch_size, _CALL.get(self._device.type, math.inf)):
            yield rows.tolist(), {name: part.to(self._device) for name, part in data.batch(rows).items()}

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is untyped here
    def read(self, ask: Callable[..., Any], batch: dict[str, torch.Tensor]) -> list[Output]:
        """What the task makes of a batch; `ask` takes what the network does, and gives what that gives."""
        return self._task.answer(ask, self._processor, self.labels, batch, self.bounds)

    @property
    def compilable(self) -> bool:
        """Whether another engine could make what is asked of the network."""
        prompted = hasattr(self.net, "peft_config")  # anything else of PEFT's has been merged
        return one_pass(self._task) and not prompted

    def through(self, ask: Callable[..., Any], engine: str) -> Predictor:
        """The same with another engine for answers: `ask` takes what the network does, and gives what that gives."""
        made = copy.copy(self)
        made._ask, made.engine = ask, engine  # noqa: SLF001 - its own class
        return made

    @property
    def weight_bytes(self) -> int:
        """What the parameters take in memory."""
        return sum(p.numel() * p.element_size() for p in self.net.parameters())

    def fault(self, target: str) -> str:
        """What keeps a string from being the true label of one of its answers; "" where nothing does."""
        return self._task.targets.fault(target, self.labels)

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        """The answer piece by piece, never more of it than the spec allows. Raises UserError where none is written."""
        bound = replace(sampling, most=min(sampling.most, self.bounds.answer))
        return self._task.write(self.net, self._processor, given, self.bounds, bound)

    def explain(self, given: str, label: str | None, steps: int) -> Explanation:
        """What in an input speaks for `label`, the predicted one when None. Safe beside a call. Raises UserError."""
        return self._task.explain(self.net, self._processor, self.labels, self.bounds.input, given, label, steps)
