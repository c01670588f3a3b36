"""What a training would ask for, before anything runs: advice, memory, time and money.

Memory is a device's model states (`zero.py`) and activations (`shapes.py`); what Python, torch and Ray take comes
on top. Time is that of the project's own past runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.settings import Settings
from cluster.store.tracking import Tracker
from jobs.data import preparation
from jobs.data.split import TRAIN
from jobs.spec import Spec
from jobs.training import energy, zero
from jobs.training.energy import Energy
from jobs.training.zero import States

from . import shapes
from .advice import Advice, advise
from .shapes import Sizes

METHODS = ("full", "lora", "qlora")
"""Those that every plan compares; the spec's own is with them."""
_LIKE = {"base_model": "base model", "name": "method", "max_length": "max_length", "workers": "number of workers"}
"""Logged values in which a past run should be like this one, in the order of their weight, and what each one is."""


@dataclass(frozen=True)
class Need:
    """Bytes that one device holds with a method under a ZeRO stage; `peak` is the most at once."""

    method: str
    stage: int
    states: States
    activations: int
    peak: int


@dataclass(frozen=True)
class Duration:
    """Seconds of the longest training, of all epochs, at the rows per second of a past run. `unlike`: what differed."""

    seconds: float
    rows_per_second: float
    run: str
    unlike: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """`needs` for every method and stage; `need` is the spec's own. `sizes` by method, `cost` where time is known."""

    advice: tuple[Advice, ...]
    rows: int
    sizes: Mapping[str, Sizes]
    needs: tuple[Need, ...]
    need: Need
    reason: str
    device_bytes: int
    on_gpu: bool
    duration: Duration | None
    cost: Energy | None

    @property
    def fits(self) -> bool:
        return self.need.peak <= self.device_bytes


def make(spec: Spec, settings: Settings) -> Planned:
    """Reads data, the model's description and past runs; starts and writes nothing. Raises DataError, SpecError."""
    loaded = preparation.load(spec)
    rows, labels = int((loaded.rows["split"] == TRAIN).sum()), loaded.taken.labels
    methods = tuple(dict.fromkeys((*METHODS, spec.method.name)))
    nets = {method: shapes.on_meta(spec, labels, method) for method in methods if method != "qlora"}
    sizes = {method: shapes.sizes(net) for method, net in nets.items()}
    kept = {method: _activations(net, spec) for method, net in nets.items()}
    every = tuple(need for m in methods for need in needs(spec, m, sizes[_trained(m)], kept[_trained(m)]))
    own, device = sizes[_trained(spec.method.name)], shapes.device_bytes(spec)
    picked = zero.plan(
        spec,
        parameters=own.parameters,
        trainable=own.trainable,
        device_bytes=device,
        quantised=_quantised(own, spec.method.name),
    )
    took = duration(spec, rows, Tracker(settings, spec.name).runs())
    return Planned(
        advice=advise(rows, sizes["full"].parameters, spec.method.name),
        rows=rows,
        sizes=sizes,
        needs=every,
        need=next(n for n in every if (n.method, n.stage) == (spec.method.name, picked.stage)),
        reason=picked.reason,
        device_bytes=device,
        on_gpu=spec.scaling.use_gpu,
        duration=took,
        cost=energy.used(took.seconds, spec.scaling, settings) if took else None,
    )


def needs(spec: Spec, method: str, sizes: Sizes, activations: int) -> tuple[Need, ...]:
    """One for each ZeRO stage. `qlora` has the sizes and activations of `lora`."""
    made = []
    for stage in zero.STAGES:
        states = zero.states(
            stage,
            parameters=sizes.parameters,
            trainable=sizes.trainable,
            workers=spec.scaling.fewest_workers,
            precision=spec.training.precision,
            quantised=_quantised(sizes, method),
            offload=spec.training.offload,
        )
        peak = states.peak(activations, accumulating=spec.accumulation(spec.scaling.fewest_workers) > 1)
        made.append(Need(method, stage, states, activations, peak))
    return tuple(made)


def duration(spec: Spec, rows: int, runs: Sequence[Mapping[str, Any]]) -> Duration | None:
    """From the past run that is most like the spec, of those the newest; None when there is none.

    `runs` newest first, as `Tracker.runs` gives them. A run is usable when it finished and says its rows per second.
    """
    mine = params(spec)
    usable = [r for r in runs if r["status"] == "FINISHED" and r["metrics"].get("rows_per_second", 0) > 0]
    if not usable:
        return None
    like = min(usable, key=lambda r: [r["params"].get(key) != mine[key] for key in _LIKE])
    rate = like["metrics"]["rows_per_second"]
    unlike = tuple(what for key, what in _LIKE.items() if like["params"].get(key) != mine[key])
    return Duration(rows * spec.training.epochs / rate, rate, like["id"], unlike)


def params(spec: Spec) -> dict[str, str]:
    """What a run logs of its spec so that a later plan can tell how like it is."""
    return {
        "base_model": spec.base_model,
        "name": spec.method.name,
        "max_length": str(spec.training.max_length),
        "workers": spec.scaling.said_workers,
    }


def _trained(method: str) -> str:
    return "lora" if method == "qlora" else method


def _quantised(sizes: Sizes, method: str) -> int:
    return sizes.quantisable if method == "qlora" else 0


def _activations(net: Any, spec: Spec) -> int:
    counted = shapes.activations(net, spec)
    return counted if spec.training.precision == "fp32" else counted // 2
