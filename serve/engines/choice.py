"""Which engine answers: the one that the spec names, or the fastest of those that answer as the trainer did.

What is compiled and measured is kept in a folder of the node, in that of its spools (`home`): the other replicas of the
node find it there, and so does one that starts again. A folder in it is named after all files of the version and the
libraries.

    model.onnx, int8.onnx      what was compiled
    whole/                     what vLLM reads
    measured-THREADS.json      what was measured of each engine
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from cluster.errors import ClusterError
from cluster.store import fetched
from cluster.store.turn import turn
from jobs.models.predictor import Predictor
from jobs.spec import VllmSpec
from serve.versions.certificate import Measured

from . import child, parity

if TYPE_CHECKING:
    from .engine import Answers

log = logging.getLogger(__name__)

Kind = Literal["torch", "onnx", "onnx-int8", "openvino", "vllm", "auto"]

TORCH, ONNX, INT8, OPENVINO, VLLM, AUTO = "torch", "onnx", "onnx-int8", "openvino", "vllm", "auto"
TOLERANCE: Mapping[str, float] = {TORCH: 1e-3, ONNX: 1e-3, INT8: 0.1, OPENVINO: 0.05, VLLM: 0.0} | dict.fromkeys(
    ("vllm-auto", "vllm-bfloat16", "vllm-float16"), 1.0
)
"""Largest difference of a probability from the trainer's, by engine. vLLM's texts have to be the trainer's; in half
precision any share of them may be others, and how likely the trainer's are is looked at instead (`writer.open_`)."""
FEWER_BITS: Mapping[str, str] = {INT8: "eight bits", OPENVINO: "bfloat16"}
"""Engines that compute less exactly than the trainer, which are held to the version's test rows as well, and how."""
MOST_LOST = 0.005
"""Accuracy that fewer bits may lose on the version's test rows."""
FEWEST_ALIKE = 0.98
"""Share of the test rows to which fewer bits must give the trainer's own label."""

_ROWS = 500  # of these, at most
_REPEATS, _LONGEST = 5, 5.0  # none is begun after so many seconds: texts that are written take long
_KEPT = 3  # versions a node
_LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino")


def home(spool: Path) -> Path:
    """The node's folder of compiled models, in that of its spools."""
    return spool / "engines"


def loader(kind: Kind, kept: Path, vllm: VllmSpec | None = None) -> Callable[[Path], Answers]:
    """What loads a version's folder into an engine of this kind. `kept` is the node's folder of compiled models."""
    how = vllm or VllmSpec()  # type: ignore[call-arg]
    return Predictor.load if kind == TORCH else lambda folder: _loaded(folder, kind, kept, how)


def fastest(found: Iterable[Measured]) -> str:
    """Of those without a fault; PyTorch where there is none, since nothing else can show what is wrong."""
    good = [(one.seconds, one.engine) for one in found if not one.fault and one.seconds is not None]
    return min(good)[1] if good else TORCH


def measured(kept: Path, folder: Path) -> list[Measured]:
    """What this node has measured of a version; empty where it was not asked to."""
    return list(_read(_place(kept, folder)).values())


def _loaded(folder: Path, kind: Kind, kept: Path, how: VllmSpec) -> Answers:
    """Raises ClusterError where the engine that was asked for is not to be had."""
    plain = Predictor.load(folder)
    names = [how.engine if name == VLLM else name for name in _wanted(kind, plain)]
    if names == [TORCH]:
        return plain
    kept.mkdir(parents=True, exist_ok=True)
    with turn(kept):
        place = _place(kept, folder)
        _make_room(kept, place)
        known, wanted = _read(place), parity.golden(folder)
        # What was measured is what serves: vLLM is started once.
        opened = functools.cache(lambda name: _opened(plain, name, wanted, place, how))
        for name in names:
            if name not in known:
                known[name] = _measured(opened, name, folder, wanted)
        _write(place, known)
        name = fastest(known[name] for name in names) if kind == AUTO else names[0]
        if known[name].fault and kind != AUTO:
            mend = f"serving.engine: {TORCH if kind == VLLM else AUTO}"
            raise ClusterError(f"engine {name}: {known[name].fault}", mend=mend)
        log.info("engine %s of %s", name, list(known.values()))
        return opened(name)


def _wanted(kind: Kind, plain: Predictor) -> list[str]:
    """Engines that are to be measured. Raises ClusterError where the one that was asked for is impossible."""
    if kind == AUTO:
        return [
            TORCH,
            *(name for name in (ONNX, INT8, OPENVINO, VLLM) if not _impossible(name, plain) and _worth_it(name)),
        ]
    impossible = _impossible(kind, plain)
    if impossible:
        raise ClusterError(f"engine {kind} {impossible}", mend="serving.engine: torch")
    if kind == VLLM:
        child.executable()
    return [kind]


def _worth_it(name: str) -> bool:
    """Whether `auto` looks at it. vLLM on a CPU takes half a minute and another's memory for what may be no faster."""
    if name != VLLM:
        return True
    import torch

    return torch.cuda.is_available() and child.found() is not None


def _impossible(name: str, plain: Predictor) -> str:
    import torch

    if name == VLLM:
        return "" if plain.follows_on else "is for whole causal models that write texts"
    if not plain.compilable:
        return "is not for tasks that write texts"
    return "runs on CPUs" if torch.cuda.is_available() else ""


def _measured(opened: Callable[[str], Answers], name: str, folder: Path, wanted: parity.Golden) -> Measured:
    try:
        engine = opened(name)
        outputs = engine(wanted.inputs)
    except Exception as error:  # noqa: BLE001 - whatever an engine cannot do, it says in an exception of its own
        said, made = str(error).strip().splitlines(), "started" if name.startswith(VLLM) else "compiled"
        return Measured(name, fault=f"cannot be {made}: {said[0] if said else type(error).__name__}")
    apart, rows = parity.apart(wanted, outputs), (_compared(engine, folder) if name in FEWER_BITS else {})
    fault = _fault(name, apart, **rows)
    return Measured(name, _seconds(engine, wanted.inputs), apart, fault=fault, **rows)


def _fault(engine: str, apart: float, accuracy: float = 1.0, before: float = 1.0, alike: float = 1.0) -> str:
    if apart > TOLERANCE[engine]:
        return f"answers the golden inputs {apart:.2g} away from the trainer (allowed: {TOLERANCE[engine]:g})"
    if accuracy < before - MOST_LOST:
        return f"{FEWER_BITS[engine]} cost accuracy: {accuracy:.3f}, {before:.3f} before"
    if alike < FEWEST_ALIKE:
        return f"{FEWER_BITS[engine]} change {1 - alike:.1%} of the answers (allowed: {1 - FEWEST_ALIKE:.0%})"
    return ""


def _compared(engine: Answers, folder: Path) -> dict[str, float]:
    rows = pd.read_parquet(folder / "reference.parquet", columns=["input", "true", "label"])
    rows = rows if len(rows) <= _ROWS else rows.sample(_ROWS, random_state=0)
    said = [output.label for output in engine(list(rows["input"]))]
    return {
        "accuracy": float((rows["true"] == said).mean()),
        "before": float((rows["true"] == rows["label"]).mean()),
        "alike": float((rows["label"] == said).mean()),
    }


def _seconds(engine: Answers, inputs: Sequence[str]) -> float:
    """Of all inputs in one batch and of one alone, each in turn: some engines begin anew for another length."""

    def once(given: Sequence[str]) -> float:
        began = time.perf_counter()
        engine(given)
        return time.perf_counter() - began

    began, best = time.perf_counter(), math.inf
    for _ in range(_REPEATS):
        best = min(best, once(inputs) + sum(once([one]) for one in inputs) / len(inputs))
        if time.perf_counter() - began > _LONGEST:
            break
    return best


def _opened(plain: Predictor, name: str, wanted: parity.Golden, place: Path, how: VllmSpec) -> Answers:
    """Made where it is not yet. A file or folder is there whole or not at all."""
    if name == TORCH:
        return plain
    place.mkdir(exist_ok=True)
    if name.startswith(VLLM):
        from . import writer

        merged = place / "whole"
        if not merged.exists():
            shutil.rmtree(place / "part", ignore_errors=True)
            writer.whole(plain, place / "part").replace(merged)
        return writer.open_(plain, merged, how, wanted)
    from . import compiled  # torch is behind both

    whole, small = place / "model.onnx", place / "int8.onnx"
    if not whole.exists():
        compiled.exported(plain, wanted.inputs, place / "model.part").replace(whole)
    if name == OPENVINO:
        return compiled.openvino(plain, whole, name)
    if name == INT8 and not small.exists():
        compiled.quantised(whole, place / "int8.part").replace(small)
    return compiled.session(plain, small if name == INT8 else whole, name)


def _place(kept: Path, folder: Path) -> Path:
    made_by = [f"{name}=={version(name)}" for name in _LIBRARIES]
    return kept / hashlib.sha256(" ".join([*made_by, fetched.digest(folder)]).encode()).hexdigest()[:16]


def _make_room(kept: Path, place: Path) -> None:
    """For this one beside those that were used last."""
    if place.exists():
        place.touch()
    others = sorted((path for path in kept.iterdir() if path != place), key=lambda path: path.stat().st_mtime)
    for path in others[: -(_KEPT - 1)]:
        shutil.rmtree(path)


def _read(place: Path) -> dict[str, Measured]:
    file = _file(place)
    return {one["engine"]: Measured(**one) for one in json.loads(file.read_text())} if file.exists() else {}


def _write(place: Path, known: Mapping[str, Measured]) -> None:
    """Without what failed as it was compiled: a full disk is not full for ever."""
    part = _file(place).with_suffix(".part")
    place.mkdir(exist_ok=True)
    part.write_text(json.dumps([asdict(one) for one in known.values() if one.seconds is not None], indent=2))
    part.replace(_file(place))


def _file(place: Path) -> Path:
    import torch

    return place / f"measured-{torch.get_num_threads()}.json"
