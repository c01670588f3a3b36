"""Every task on a shared base: what an adapter answers, alone or in one batch with another, is what it does by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import tasks
from jobs.data import preparation
from jobs.data.split import TEST
from jobs.models import model
from jobs.models.adapters import Base
from jobs.models.predictor import Predictor, one_pass
from jobs.pipeline import Place
from jobs.tasks.task import Output, Sampling
from tests import adapters, tiny_images

from . import projects

pytestmark = pytest.mark.usefixtures("one_thread")


def same(one: list[Output], other: list[Output]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert ours.label == theirs.label
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-3)
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-3)
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-2)


@pytest.mark.parametrize("task", sorted(projects.PROJECTS))
def test_adapters_of_a_task_answer_as_they_do_by_themselves(place: Place, tmp_path: Path, task: str) -> None:
    spec = projects.spec(task, tmp_path / "project", rows=60, method__name="lora", training__max_answer=6)
    data = preparation.prepare(spec, place.storage)
    inputs = list(data.rows(place.storage, TEST)["input"])[:4]
    model.check(spec)
    folders = [adapters.write(tmp_path / str(seed), spec, seed, data.labels, inputs) for seed in (1, 2)]
    base = Base(spec.base_model, spec.task)
    shared, alone = [base.load(folder) for folder in folders], [Predictor.load(folder) for folder in folders]
    wanted = [predictor(inputs) for predictor in alone]
    for answered in (base.answer([(one, inputs) for one in shared]), [one(inputs) for one in shared]):
        for ours, theirs in zip(answered, wanted, strict=True):
            same(ours, theirs)
    mixed = one_pass(tasks.get(task))
    assert [one.net.mixes is not None for one in shared] == [mixed, mixed]


def test_adapters_on_an_image_model_do_too(place: Place, tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    spec = tiny_images.spec(tmp_path / "data", tiny_images.base_model(tmp_path / "vision"), 60)
    data = preparation.prepare(spec, place.storage)
    inputs = list(data.rows(place.storage, TEST)["input"])[:4]
    folders = [adapters.write(tmp_path / str(seed), spec, seed, data.labels, inputs) for seed in (1, 2)]
    base = Base(spec.base_model, spec.task)
    shared = [base.load(folder) for folder in folders]
    for ours, folder in zip(base.answer([(one, inputs) for one in shared]), folders, strict=True):
        same(ours, Predictor.load(folder)(inputs))
    assert all(one.net.mixes is not None for one in shared)


def test_texts_of_two_adapters_are_written_in_turn(place: Place, tmp_path: Path) -> None:
    spec = projects.spec("text-generation", tmp_path / "project", rows=60, method__name="lora", training__max_answer=8)
    data = preparation.prepare(spec, place.storage)
    given = data.rows(place.storage, TEST)["input"].iloc[0]
    folders = [adapters.write(tmp_path / str(seed), spec, seed, data.labels, [given]) for seed in (1, 2)]
    base = Base(spec.base_model, spec.task)
    sampling = Sampling(8)
    wanted = [list(Predictor.load(folder).write(given, sampling)) for folder in folders]
    writing = [base.load(folder).write(given, sampling) for folder in folders]
    made: list[list[str]] = [[], []]
    while any(pieces is not None for pieces in writing):
        for at, pieces in enumerate(writing):
            piece = next(pieces, None) if pieces is not None else None
            if piece is None:
                writing[at] = None
            else:
                made[at].append(piece.text)
    assert made == [[piece.text for piece in pieces] for pieces in wanted]
    assert made[0] != made[1]
