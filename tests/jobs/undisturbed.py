"""The training that nobody disturbs, which one that was killed and went on is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import loop, train


class EnoughError(Exception):
    """Ends a training that is only to be compared with."""


def compare(curve: Sequence[Mapping[str, float]], spec: Spec, place: Place) -> None:
    """Each report beside that of one worker in this process, in stage 0. There must be a process group."""
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    last, found = curve[-1]["step"], {}

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        found[metrics["step"]] = metrics
        if metrics["step"] >= last:
            raise EnoughError

    with suppress(EnoughError):
        loop.run(replace(job, zero_stage=0), rank=0, world=1, threads=1, report=report)
    for name in ("train_loss", "validation_loss", "learning_rate"):
        np.testing.assert_allclose([row[name] for row in curve], [found[row["step"]][name] for row in curve], rtol=1e-3)
