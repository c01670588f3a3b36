"""A model that was made elsewhere: an adapter as PEFT saves it, or a whole model as transformers does.

Only safetensors are read: a pickle runs whatever its maker wrote into it.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cluster.errors import UserError
from jobs import tasks
from jobs.spec import Spec

from . import model

_ADAPTER, _WHOLE = "adapter_config.json", "config.json"


def laid_out(spec: Spec, labels: tuple[str, ...], given: Path, into: Path) -> None:
    """Put the model in `given` into the empty folder `into` as a training leaves it, once it has been loaded.

    Raises UserError where it is none, holds no safetensors, or is none of the spec's base model and labels.
    """
    part = "adapter" if (given / _ADAPTER).is_file() else "weights"
    if part == "weights" and not (given / _WHOLE).is_file():
        raise UserError(f"holds neither {_ADAPTER} nor {_WHOLE}", where=str(given), mend="name PEFT's or transformers'")
    files = sorted(given.glob("*.safetensors"))
    if not files:
        raise UserError("holds no .safetensors", where=str(given), mend="save it again; pickles are not read")
    for file in files:
        _require_readable(file)
    shutil.copytree(given, into / part, ignore=lambda _, names: [n for n in names if not _wanted(n)])
    try:
        with warnings.catch_warnings():
            # PEFT's word for an adapter of other modules, which would change nothing.
            warnings.filterwarnings("error", "Found missing adapter keys")
            made = model.load(into, tasks.get(spec.task), spec.base_model, labels)
    except (ValueError, RuntimeError, KeyError, UserWarning) as error:  # PEFT's and transformers' words, too
        said = str(error).splitlines()[0]
        raise UserError(f"does not fit {spec.base_model}: {said[:200]}", where=str(given)) from None
    if part == "weights":
        _require_labels(made, spec, labels, given)


def _wanted(name: str) -> bool:
    return name.endswith((".safetensors", ".json"))


def _require_readable(file: Path) -> None:
    try:
        with safe_open(file, "pt") as parts:
            names = list(parts.keys())
    except SafetensorError as error:
        raise UserError(f"is no safetensors file: {error}", where=str(file)) from None
    if not names:
        raise UserError("holds nothing", where=str(file))


def _require_labels(made: Any, spec: Spec, labels: tuple[str, ...], given: Path) -> None:
    """In the order in which the model has them: an adapter has no names, and a wrong order of it shows in the gate."""
    wanted = tasks.get(spec.task).options(labels).get("id2label")
    theirs = {at: str(name) for at, name in made.config.id2label.items()}
    if wanted is not None and theirs != wanted and not all(name.startswith("LABEL_") for name in theirs.values()):
        mend = f"here they are {', '.join(wanted.values())}"
        raise UserError(f"its labels are {', '.join(theirs.values())}", where=str(given), mend=mend)
