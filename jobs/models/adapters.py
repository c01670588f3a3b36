"""One base model in memory and many adapters on it: each answers as a model of its own, and batches may be of several.

LoRA and its kin (rsLoRA, DoRA) share a base. PEFT can give each row of a batch its own adapter, but for DoRA, heads of
several layers, and layers that fold rows into others: such an adapter answers alone, and so does one whose task asks
the network more than once for an answer, as those that write do.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from jobs import tasks
from jobs.tasks.task import Bounds, Output, Task

from . import model
from .predictor import Predictor, one_pass

if TYPE_CHECKING:
    import torch

_TRIAL = Bounds(4, 1)


class Base:
    """The base model of a task. `load` puts an adapter on it, which is there as long as its predictor is.

    Safe on any thread: one pass at a time, and none while an adapter is put on or taken off.
    """

    def __init__(self, base_model: str, task: str) -> None:
        self._base_model, self._name, self._task = base_model, task, tasks.get(task)
        self._net: Any = None
        self._turn, self._numbers = threading.Lock(), itertools.count(1)
        self._gone: list[str] = []
        self._processors: dict[tuple[str, Bounds], Any] = {}
        self._labels, self._steered, self._whose = 0, weakref.WeakSet[Any](), list[str]()

    def load(self, folder: Path) -> Predictor:
        """The model in a version's folder. Raises UserError for one that is no adapter on this base."""
        made = Predictor.around(folder, lambda *described: self._adapter(folder, *described), self._processor)
        made.base = self
        return made

    def answer(self, asked: Sequence[tuple[Predictor, Sequence[str]]]) -> list[list[Output]]:
        """The outputs of each predictor for its inputs, in order; together where they can be."""
        answers: list[list[Output]] = [[] for _ in asked]
        for places in _grouped([_mix(predictor) for predictor, _ in asked]):
            part = [asked[at] for at in places]
            alone = len(part) == 1 or _mix(part[0][0]) is None
            made = [predictor(inputs) for predictor, inputs in part] if alone else self._mixed(part)
            for at, outputs in zip(places, made, strict=True):
                answers[at] = outputs
        return answers

    @property
    def adapters(self) -> int:
        """How many are in memory."""
        with self._turn:
            self._sweep()
            return len(self._net.peft_config) if self._net is not None else 0

    @property
    def weight_bytes(self) -> int:
        """What the parameters of base and adapters take in memory."""
        with self._turn:
            self._sweep()
            return sum(p.numel() * p.element_size() for p in self._net.parameters()) if self._net is not None else 0

    @property
    def net(self) -> Any:
        """transformers' model, with PEFT's layers in it."""
        return self._net.get_base_model()

    @contextmanager
    def one(self, name: str) -> Iterator[Any]:
        """The network with this adapter alone, for the time of a pass."""
        with self._turn:
            self._sweep()
            self._activate(name)
            yield self.net

    @contextmanager
    def rows(self, names: Sequence[str]) -> Iterator[Any]:
        """The network, for the time of a pass over as many rows, each with the adapter of this name."""
        with self._turn:
            self._sweep()
            self._whose = list(names)
            try:
                yield self.net
            finally:
                self._whose = []

    def _mixed(self, asked: Sequence[tuple[Predictor, Sequence[str]]]) -> list[list[Output]]:
        """Each row through its own adapter, all in the same passes; each read by its own predictor."""
        inputs = [given for _, part in asked for given in part]
        whose = [at for at, (_, part) in enumerate(asked) for _ in part]
        outputs: list[Output | None] = [None] * len(inputs)
        for rows, batch in asked[0][0].batches(inputs):
            whole = _Pass(self, [asked[whose[row]][0].net.name for row in rows], batch)
            for at in sorted({whose[row] for row in rows}):
                places = [place for place, row in enumerate(rows) if whose[row] == at]
                part = {name: value[places] for name, value in batch.items()}
                for place, output in zip(places, asked[at][0].read(_Part(whole, places), part), strict=True):
                    outputs[rows[place]] = output
        answered = iter(output for output in outputs if output is not None)
        return [list(itertools.islice(answered, len(part))) for _, part in asked]

    def _adapter(self, folder: Path, task: Task, base_model: str, labels: Sequence[str]) -> Adapter:
        if (base_model, task) != (self._base_model, self._task):
            raise UserError(f"is a {base_model}, and here is {self._base_model} for {self._name}")
        if not (folder / "adapter").is_dir():
            raise UserError("is a whole model, no adapter", mend="serve it by itself")
        kind = model.adapter_kind(folder)
        if kind != "LORA":
            raise UserError(f"is an adapter of the kind {kind}; LoRA and DoRA share a base", mend="serve it by itself")
        with self._turn:
            self._sweep()
            name = f"a{next(self._numbers):06}"
            self._put(folder, name, labels)
            size = sum(p.numel() * p.element_size() for n, p in self._net.named_parameters() if name in n.split("."))
        made = Adapter(self, name, size, self._forget(name))
        made.mixes = len(labels) if self._can_mix(made) else None
        return made

    def _processor(self, task: Task, place: Path, bounds: Bounds) -> Any:
        """One for all that are alike: a tokenizer takes more memory than an adapter.

        Not for other bounds: a tokenizer keeps how it cuts, and cannot be told otherwise while another thread uses it.
        """
        digest = hashlib.sha256()
        for path in sorted(place.iterdir()):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        key = digest.hexdigest(), bounds
        if key not in self._processors:
            self._processors[key] = task.processor(place)
        return self._processors[key]

    def _put(self, folder: Path, name: str, labels: Sequence[str]) -> None:
        import torch

        if self._net is None:
            self._net = model.adapted(model.base(self._task, self._base_model, labels, 0), folder, name).eval()
            if torch.cuda.is_available():
                self._net.cuda()
            self._labels = len(labels)
        else:
            self._fit_heads(labels)
            try:
                model.add_adapter(self._net, folder, name)
            except Exception:
                # Whatever PEFT could not read: nothing of it stays.
                if name in self._net.peft_config:
                    self._net.delete_adapter(name)
                raise
        for layer in model.adapted_layers(self._net):
            if layer not in self._steered:
                layer.register_forward_pre_hook(self._steer, with_kwargs=True)
                self._steered.add(layer)

    def _fit_heads(self, labels: Sequence[str]) -> None:
        """PEFT copies an adapter's head from the base's before it reads its weights: it must have as many outputs."""
        import torch

        if len(labels) == self._labels:
            return
        config = copy.deepcopy(self.net.config)
        config.update(self._task.options(labels))
        with torch.device("meta"):
            other = self._task.auto().from_config(config)
        for head in self._task.head:
            if hasattr(other, head):
                wrapper = getattr(self.net, head)
                device = next(self._net.parameters()).device
                wrapper.original_module = getattr(other, head).to_empty(device=device).requires_grad_(False)
        self._labels = len(labels)

    def _can_mix(self, adapter: Adapter) -> bool:
        """Found out by a pass over next to nothing: PEFT says at its layers what it cannot do."""
        import torch

        if not one_pass(self._task):
            return False
        blank = self._task.blank(self.net.config, 2, _TRIAL)
        batch = {name: part.to(adapter.device) for name, part in blank.items() if name != "labels"}
        try:
            with torch.inference_mode(), self.rows([adapter.name] * 2) as net:
                net(**batch)
        except (TypeError, ValueError):
            return False
        return True

    def _steer(self, _: Any, given: tuple[Any, ...], asked: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What PEFT's own forward does, which walks all modules to find these layers each time."""
        return given, (asked | {"adapter_names": self._whose} if self._whose else asked)

    def _activate(self, name: str) -> None:
        if self._net.active_adapters != [name]:
            self._net.set_adapter(name, inference_mode=True)

    def _forget(self, name: str) -> Callable[[], None]:
        gone = self._gone  # not this object, which an adapter on its way out must not keep
        return lambda: gone.append(name)

    def _sweep(self) -> None:
        """Take off what nobody holds any more; the last stays, since PEFT's layers need one."""
        while self._gone and len(self._net.peft_config) > 1:
            name = self._gone.pop()
            self._activate(next(other for other in self._net.peft_config if other != name))
            self._net.delete_adapter(name)


class Adapter:
    """One adapter as the network of a predictor, `size` bytes beside the base's own.

    `mixes`: what those that go together have alike, None for none.
    """

    def __init__(self, base: Base, name: str, size: int, forget: Callable[[], None]) -> None:
        self.name, self.size, self._base = name, size, base
        self.mixes: Hashable = None
        self.device = next(base.net.parameters()).device
        weakref.finalize(self, forget).atexit = False

    def __call__(self, *given: Any, **asked: Any) -> Any:
        if self.mixes is None:
            with self._base.one(self.name) as net:
                return net(*given, **asked)
        import torch

        rows = len(next(part for part in (*given, *asked.values()) if isinstance(part, torch.Tensor)))
        with self._base.rows([self.name] * rows) as net:
            return net(*given, **asked)

    def generate(self, *given: Any, **asked: Any) -> Any:
        with self._base.one(self.name) as net:
            return net.generate(*given, **asked)

    def eval(self) -> Adapter:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base.net, name)


class _Pass:
    """One pass of the network over rows of several adapters, made when the first of them asks what came of its own."""

    def __init__(self, base: Base, names: Sequence[str], batch: dict[str, torch.Tensor]) -> None:
        self.base, self._names, self._batch, self._said = base, names, batch, None

    def ask(self, asked: dict[str, Any]) -> Any:
        if self._said is None:
            with self.base.rows(self._names) as net:
                self._said = net(**{name: self._batch.get(name, value) for name, value in asked.items()})
        return self._said


class _Part:
    """A pass as the network of those whose rows these are."""

    def __init__(self, whole: _Pass, places: Sequence[int]) -> None:
        self._whole, self._places = whole, places

    def __call__(self, **asked: Any) -> Any:
        return _rows(self._whole.ask(asked), self._places)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole.base.net, name)


def _rows(said: Any, places: Sequence[int]) -> Any:
    """Some rows of what a network gave: of each tensor in it."""
    import torch

    if isinstance(said, torch.Tensor):
        return said[list(places)]
    if isinstance(said, dict):  # a ModelOutput
        return type(said)(**{name: _rows(value, places) for name, value in said.items()})
    return tuple(_rows(value, places) for value in said)


def _mix(predictor: Predictor) -> Hashable:
    return None if predictor.net.mixes is None else (predictor.net.mixes, predictor.bounds)


def _grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of those with the same key; each without one by itself."""
    groups: dict[Hashable, list[int]] = {}
    for at, key in enumerate(keys):
        groups.setdefault((at,) if key is None else (None, key), []).append(at)
    return list(groups.values())
