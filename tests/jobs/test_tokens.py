from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import tasks, tokens, train
from jobs.data import preparation
from jobs.loop import Work
from jobs.pipeline import Place
from tests.jobs.tasks import projects

WRITTEN = [name for name in projects.PROJECTS if "speech" not in name]


def work(task: str, place: Place, folder: Path, **values: Any) -> Work:
    spec = projects.spec(task, folder / "project", 60, **values)
    return train.work(spec, preparation.prepare(spec, place.storage), place.storage)


def encoded(job: Work) -> tuple[Any, bool]:
    spec = job.spec
    processor = tasks.get(spec.task).processor(spec.base_model)
    return tokens.encoded(job.shelf, spec.task, processor, job.train, job.labels, spec.bounds)


@pytest.mark.parametrize("task", WRITTEN)
def test_what_was_kept_is_what_would_be_made(task: str, place: Place, tmp_path: Path) -> None:
    job = work(task, place, tmp_path)
    kept, known = encoded(job)
    made, never = encoded(replace(job, shelf=None))
    assert (known, never) == (True, False)
    assert type(kept) is type(made)
    assert list(kept.lengths) == list(made.lengths)
    for rows in ([0, 3], range(len(made))):
        one, other = kept.batch(rows), made.batch(rows)
        assert one.keys() == other.keys()
        for name, part in one.items():
            assert part.dtype == other[name].dtype
            torch.testing.assert_close(part, other[name])


def test_rows_are_tokenised_once(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = work("text-generation", place, tmp_path)
    assert "rows: made in" in capsys.readouterr().err
    assert job.shelf is not None
    assert len(place.storage.list(job.shelf.place)) == 2, "train and validation"
    train.tokenise(job)
    assert f"tokens of {len(job.train) + len(job.validation)} rows: kept from before" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tasks.get("text-generation")), "encode", None)
        assert encoded(job)[1]


def test_other_rows_bounds_and_tokenizers_have_tokens_of_their_own(place: Place, tmp_path: Path) -> None:
    job = work("text-generation", place, tmp_path)
    others = [
        replace(job, train=job.train.iloc[1:]),
        replace(job, train=job.train.assign(label="other")),
        replace(job, spec=job.spec.with_values({"training.max_length": 20})),
        replace(job, spec=job.spec.with_values({"data.packing": True})),
    ]
    assert [encoded(other)[1] for other in others] == [False] * 4
    assert [encoded(other)[1] for other in others] == [True] * 4
    file = Path(job.spec.base_model) / "tokenizer.json"
    file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert not encoded(job)[1]


def test_what_has_no_tokenizer_is_not_kept(place: Place, tmp_path: Path) -> None:
    job = work("speech-recognition", place, tmp_path)
    assert not encoded(job)[1]
    assert job.shelf is not None
    assert place.storage.list(job.shelf.place) == []
