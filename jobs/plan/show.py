"""What a person reads of a plan on a terminal."""

from __future__ import annotations

from jobs import show
from jobs.training.energy import Energy
from jobs.training.zero import STAGES

from .plan import Need, Planned

_GIB, _MIB = 2**30, 2**20
_MINUTE, _HOUR = 60, 3600


def plan(made: Planned) -> str:
    advice = [f"{'warning: ' if a.warning else ''}{a.text}" for a in made.advice]
    return "\n".join([*advice, "", _weights(made), "", _memory(made), "", _time(made)])


def mend(made: Planned) -> str:
    """The cheapest way to make it fit that is offered here."""
    method, device = made.need.method, made.device_bytes
    fitting = [n for n in made.needs if n.peak <= device and (n.method != "qlora" or made.on_gpu)]
    if not fitting:
        return "a smaller training.micro_batch_size or max_length, more workers, or larger devices"
    best = min(fitting, key=lambda n: (n.method != method, n.stage))
    return f"--set method.name={best.method} --set training.zero_stage={best.stage} would"


def _weights(made: Planned) -> str:
    rows = (
        [name, f"{s.parameters:,}", f"{s.trainable:,}", f"{s.trainable / s.parameters:.2%}"]
        for name, s in made.sizes.items()
    )
    return show.table("weights", ["method", "all", "trainable", "share"], rows)


def _memory(made: Planned) -> str:
    by = {(n.method, n.stage): n for n in made.needs}
    methods = dict.fromkeys(need.method for need in made.needs)
    rows = ([method, *(_cell(by[method, stage], made) for stage in STAGES)] for method in methods)
    head = ["method", *(f"stage {stage}" for stage in STAGES)]
    need = made.need
    held = {"weights": need.states.weights}
    held |= {"weights gathered whole": need.states.gathered} if need.states.gathered else {}
    held |= {"optimizer": need.states.optimizer, "gradients": need.states.gradients}
    held |= {"buffer to reduce them": need.states.bucket, "activations": need.activations}
    parts = ", ".join(f"{_size(count)} {name}" for name, count in held.items())
    return f"""{show.table(f"memory of one device, which has {_size(made.device_bytes)}", head, rows)}
* {need.method} with ZeRO stage {need.stage}: {parts}
  ({made.reason}); not all of it is there at once
! does not fit. QLoRA needs a GPU. Python, torch and Ray come on top."""


def _cell(need: Need, made: Planned) -> str:
    return f"{_size(need.peak)}{' *' if need == made.need else ''}{'' if need.peak <= made.device_bytes else ' !'}"


def _time(made: Planned) -> str:
    if made.duration is None or made.cost is None:
        return "time and money: no past run of this project to tell from"
    took = made.duration
    unlike = f", which had another {', '.join(took.unlike)}" if took.unlike else ""
    rate = f"{made.rows} rows at {took.rows_per_second:.1f} rows/s, as in run {took.run[:8]}{unlike}"
    return f"time: at most {_span(took.seconds)} for {rate}\n{_cost(made.cost)}"


def _cost(cost: Energy) -> str:
    hours = f"{cost.cpu_hours:.3g} CPU hours" + (f", {cost.gpu_hours:.3g} GPU hours" if cost.gpu_hours else "")
    unknown = "no price known (REHONE_CPU_HOUR_PRICE, REHONE_GPU_HOUR_PRICE)"
    said = f"money: {hours}, {unknown if cost.price is None else f'{cost.price:.3g}'}"
    if cost.kwh is not None:
        said += f"\nenergy: {cost.kwh:.3g} kWh" + (f", {cost.grams:.3g} g CO2" if cost.grams is not None else "")
    return said


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def _span(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
