from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cluster.settings import Settings
from jobs import pipeline, tasks
from jobs.data import preparation
from jobs.data.split import TRAIN
from jobs.models import model, publish
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny

from . import writing


@pytest.fixture
def vllm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable that plays vLLM (`vllm_fake.py`)."""
    made = tmp_path_factory.mktemp("vllm") / "vllm"
    made.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).with_name("vllm_fake.py")} "$@"\n')
    made.chmod(0o755)
    monkeypatch.setenv("REHONE_VLLM", str(made))
    return made


@dataclass(frozen=True)
class Kept:
    """A version in a registry of its own, with everything that serving needs."""

    spec: Spec
    place: Place
    folder: Path


def teach(spec: Spec, rows: pd.DataFrame, labels: tuple[str, ...], epochs: int) -> Any:
    """A network that was taught, if little: one that was not answers all inputs alike, and every engine would agree."""
    task = tasks.get(spec.task)
    net, processor = model.base(task, spec.base_model, labels, 1), task.processor(spec.base_model)
    encoded = task.encode(processor, list(rows["input"]), list(rows["label"]), labels, spec.bounds)
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=0.005)
    for _ in range(epochs):
        for at in range(0, len(rows), 16):
            net(**encoded.batch(np.arange(at, min(at + 16, len(rows))))).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return net.eval()


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Kept:
    """Not to be changed: tests that change a version's files do so in a copy."""
    home = tmp_path_factory.mktemp("taught")
    spec, labels = tiny.spec(home, base_model), ("negative", "positive")
    place = Place.from_settings(Settings(storage=str(home / "store")))
    data = preparation.prepare(spec, place.storage)
    teach(spec, data.rows(place.storage, TRAIN), labels, 4).save_pretrained(str(home / "made" / "weights"))
    with pipeline.open_run(spec, data, place, "train") as run:
        version = publish.publish(
            spec, data, home / "made", curve=(), storage=place.storage, registry=place.registry, run=run
        ).version
    return Kept(spec, place, place.registry.download(version))


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that writes texts. Not to be changed."""
    return writing.folder(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="session")
def plain(version: Path) -> Predictor:
    """That model. Not to be changed either."""
    return Predictor.load(version)
