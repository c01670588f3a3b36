"""A published model version, loaded for inference: inputs in, answers with scores and an embedding out.

Evaluation and serving both answer through it, so what was measured is what is served.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs import tasks
from jobs.explain.explanation import Explanation
from jobs.targets import passage, preference, text
from jobs.tasks import writing
from jobs.tasks.task import Bounds, Output, Piece, Sampling, Task
from jobs.tasks.text_generation import TextGeneration
from jobs.training import batches

from . import manifest, model

if TYPE_CHECKING:
    import torch

    from .adapters import Base

_NOT_ONE_PASS = {text.NAME, preference.NAME, passage.NAME}


def one_pass(task: Task) -> bool:
    """Whether an answer is one pass through the network with the input, and nothing else is asked of it."""
    return task.targets.NAME not in _NOT_ONE_PASS


_CALL = {"cpu": 24.0}
"""Tokens that cost as much as a pass itself, by device. Elsewhere a few rows cost no more than one."""


class Predictor:
    """Answers in batches of like length. One caller at a time."""

    at_once = False

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
        import torch

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
        described = manifest.read(folder)
        task = tasks.get(described["task"])
        net = load(task, described["base_model"], described["labels"])
        bounds = manifest.spec(described).bounds
        place = folder / "processor"
        made = task.processor(place) if processor is None else processor(task, place, bounds)
        return cls(net, task, made, described["labels"], bounds)

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

    def read(self, ask: Callable[..., Any], batch: dict[str, torch.Tensor]) -> list[Output]:
        """What the task makes of a batch; `ask` takes what the network does, and gives what that gives."""
        import torch

        with torch.inference_mode():
            return self._task.answer(ask, self._processor, self.labels, batch, self.bounds)

    @property
    def compilable(self) -> bool:
        """Whether another engine could make what is asked of the network."""
        return one_pass(self._task) and not self._prompted

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

    def ready(self) -> None:
        """It answers as long as this process does."""

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        """The answer piece by piece, never more of it than the spec allows. Raises UserError where none is written."""
        return self._task.write(self.net, self._processor, given, self.bounds, self.bound(sampling))

    def bound(self, sampling: Sampling) -> Sampling:
        """The same, for no more than the spec allows."""
        return replace(sampling, most=min(sampling.most, self.bounds.answer))

    @property
    def follows_on(self) -> bool:
        """Whether an answer is what a causal model writes after the input, and its weights are a whole model's."""
        causal = isinstance(self._task, TextGeneration) and not self.net.config.is_encoder_decoder
        return causal and not self._prompted

    @property
    def _prompted(self) -> bool:
        """Whether a learned prompt stands in front of inputs: anything else of PEFT's has been merged."""
        return hasattr(self.net, "peft_config")

    @property
    def tokenizer(self) -> Any:
        return self._processor

    def prompts(self, inputs: Sequence[str]) -> list[list[int]]:
        """Tokens of what each answer follows on. Only where it `follows_on`."""
        data = self._task.encode(self._processor, inputs, None, self.labels, self.bounds)
        assert isinstance(data, writing.Sequences)
        return [data.ids[at].tolist() for at in range(len(data))]

    def lengths(self, inputs: Sequence[str]) -> list[int]:
        """Tokens that it reads of each; 0 of what is no text. Safe beside a call."""
        if self._task.inputs.NAME != "text":
            return [0] * len(inputs)
        data = self._task.encode(self._processor, inputs, None, self.labels, self.bounds)
        return [int(length) for length in data.lengths]

    def embedded(self, prompts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Of prompts, in order: what answers to them carry. Only where it `follows_on`. Safe on any thread."""
        made: dict[int, NDArray[np.float32]] = {}
        lengths, call = [len(prompt) for prompt in prompts], _CALL.get(self._device.type, math.inf)
        for rows in batches.alike(lengths, self._batch_size, call):
            chosen = [prompts[row] for row in rows]
            made |= zip(rows.tolist(), writing.embedded(self.net, chosen, self.tokenizer.pad_token_id), strict=True)
        return [made[at] for at in range(len(prompts))]

    def explain(self, given: str, label: str | None, steps: int) -> Explanation:
        """What in an input speaks for `label`, the predicted one when None. Safe beside a call. Raises UserError."""
        return self._task.explain(self.net, self._processor, self.labels, self.bounds.input, given, label, steps)
