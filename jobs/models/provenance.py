"""What a version was made by: our code, the packages, the machine. And how that differs from what is here now."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.submission.submit import JOB

_CHANGED = "+"
PARTS = ("packages", "machine")
_PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "deepspeed",
    "datasets",
    "numpy",
    "scikit-learn",
)


def provenance() -> dict[str, Any]:
    """`code`, `packages` with Python, `machine`: what arithmetic may depend on, and `job`: the Ray job's id or None."""
    import torch

    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "code": code_version(),
        "packages": {"python": platform.python_version()} | packages,
        "machine": {
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "threads": torch.get_num_threads(),
        },
        "job": os.environ.get(JOB),
    }


def code_version() -> str:
    """The commit of a checkout, with `+` when something is changed; else the installed version."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", f"--dirty={_CHANGED}", "--abbrev=12"],  # noqa: S607 - whichever git there is
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else importlib.metadata.version("rehone")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Lines such as `torch 2.12.0 -> 2.13.0`. Two dicts as `provenance` gives them, other keys are not looked at.

    Code that was not committed may differ though its version does not: that is a line of its own.
    """
    pairs = [("code", then["code"], now["code"])]
    for part in PARTS:
        names = sorted(then[part].keys() | now[part].keys())
        pairs += [(name, then[part].get(name, "none"), now[part].get(name, "none")) for name in names]
    lines = [f"{name} {before} -> {after}" for name, before, after in pairs if before != after]
    unknown = then["code"] == now["code"] and then["code"].endswith(_CHANGED)
    return (*([f"code {then['code']} had changes that are in no commit"] if unknown else []), *lines)
