"""What is done with a version that an older or a newer rehone has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import SpecError
from cluster.store.registry import ModelVersion
from jobs.models import manifest
from jobs.models.predictor import Predictor
from jobs.spec import MonitoringSpec, Spec
from tests import adapters

VERSION = ModelVersion("tiny", 1, "run", "", {}, (), 0.0)
INPUTS = adapters.TEXTS[:2]


@pytest.fixture
def folder(spec: Spec, tmp_path: Path) -> Path:
    """A version that nothing is wrong with."""
    return adapters.write(tmp_path / "version", spec, seed=1)


def changed(folder: Path, *without: str, **more: Any) -> None:
    """Another manifest: `a__b` is key b of a."""
    file = folder / manifest.NAME
    tree = json.loads(file.read_text())
    for name, value in (dict.fromkeys(without) | more).items():
        *above, last = name.split("__")
        part = tree
        for key in above:
            part = part[key]
        if name in without:
            del part[last]
        else:
            part[last] = value
    file.write_text(json.dumps(tree))


def test_what_an_older_one_does_not_say_has_a_default(folder: Path, spec: Spec) -> None:
    answers = [output.scores for output in Predictor.load(folder)(INPUTS)]
    changed(folder, "spec__serving", "spec__monitoring", "spec__training__seed")
    tree = manifest.read(folder)
    assert (tree["parent"], tree["job"], tree["code"]) == (None, None, "unknown")
    assert manifest.spec(tree) == Spec.model_validate(tree["spec"])
    assert manifest.spec(tree).monitoring == MonitoringSpec()
    assert [output.scores for output in Predictor.load(folder)(INPUTS)] == answers


def test_what_a_newer_one_says_beside_is_left_alone(folder: Path, spec: Spec) -> None:
    answers = [output.scores for output in Predictor.load(folder)(INPUTS)]
    changed(folder, signature="of another age", machine={"threads": 1, "quantum": True})
    assert manifest.spec(manifest.read(folder)) == spec
    assert [output.scores for output in Predictor.load(folder)(INPUTS)] == answers


def test_a_key_of_the_spec_that_is_not_known_is_one_line(folder: Path) -> None:
    changed(folder, code="f00d", run="8a1", spec__training__telepathy=2.0)
    with pytest.raises(SpecError) as refused:
        Predictor.load(folder)
    assert str(refused.value).startswith(
        "manifest.json of run 8a1: its spec is of another rehone (f00d): unknown key 'training.telepathy'"
    )
    assert str(refused.value).endswith("(use it with the rehone that made it, or train it again)")
    assert "\n" not in str(refused.value)


def test_one_file_is_asked_for(folder: Path, spec: Spec) -> None:
    class Registry:
        def read(self, version: ModelVersion, name: str) -> bytes:
            assert (version, name) == (VERSION, "manifest.json")
            return (folder / name).read_bytes()

    assert manifest.of(Registry(), VERSION) == manifest.read(folder)
