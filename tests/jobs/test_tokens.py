from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from jobs import tasks
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import making, tokens, train
from jobs.training.loop import Work
from jobs.training.tokens import Rows
from tests.jobs.tasks import projects


def work(task: str, place: Place, folder: Path, **values: Any) -> Work:
    spec = projects.spec(task, folder / "project", 60, **values)
    return train.work(spec, preparation.prepare(spec, place.storage), place.storage)


def source(made: Rows, place: Place) -> pd.DataFrame:
    """What they were made of."""
    frame: pd.DataFrame = place.storage.read_parquet(made.source).to_pandas()
    return frame


def same(one: Any, other: Any, which: Any) -> None:
    left, right = one.batch(which), other.batch(which)
    assert left.keys() == right.keys()
    for name, part in left.items():
        assert part.dtype == right[name].dtype
        assert torch.equal(part, right[name]), name


@pytest.mark.parametrize("task", projects.PROJECTS)
def test_what_was_kept_is_what_the_task_makes(
    task: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_CHUNK", 7)
    job = work(task, place, tmp_path)
    texts, made = source(job.train, place), tasks.get(task)
    processor = made.processor(job.spec.base_model)

    def plain(frame: pd.DataFrame) -> Any:
        return made.encode(processor, list(frame["input"]), list(frame["label"]), job.labels, job.spec.bounds)

    sent = pickle.loads(pickle.dumps(job.train))  # as it travels to a worker
    kept, expected = sent.open(), plain(texts)
    assert type(kept) is type(expected)
    assert len(kept) == len(sent) == len(texts)
    assert kept.lengths.tolist() == expected.lengths.tolist()
    for which in ([3, 0], range(len(texts)), np.array([8, 8, len(texts) - 1])):
        same(kept, expected, which)
    # Some of them, in another order, some twice, and some of those.
    order = [9, 2, 2, len(texts) - 1, 7]
    again = job.train.only(order).only([4, 1, 0])
    assert len(again) == 3
    picked = plain(texts.iloc[[7, 2, 9]])
    assert again.open().lengths.tolist() == picked.lengths.tolist()
    same(again.open(), picked, [2, 0, 1])


@pytest.mark.ray
@pytest.mark.parametrize("task", ["multi-label-classification", "preference-tuning"])
def test_ray_data_makes_the_same_of_rows(
    ray_session: str, task: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_CHUNK", 16)
    monkeypatch.setattr(making, "_BLOCK", 2)
    job = work(task, place, tmp_path)
    texts, found = source(job.train, place), []
    maker = making.Maker(job.spec, job.labels)
    for at, chunks in enumerate(
        (making.made(texts, job.spec, job.labels, maker), making._by_ray(texts, job.spec, job.labels))
    ):
        making.write(tmp_path / str(at), chunks)
        with pa.ipc.open_file(str(tmp_path / str(at))) as reader:
            found.append([reader.get_batch(part) for part in range(reader.num_record_batches)])
    assert len(texts) > 40
    assert [part.num_rows for part in found[0]] == [part.num_rows for part in found[1]]
    assert found[0] == found[1]


def test_what_travels_to_a_worker_has_no_rows(place: Place, tmp_path: Path) -> None:
    spec = projects.spec("text-generation", tmp_path / "project", 300)
    job = train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    assert len(job.train) > 200
    assert len(pickle.dumps(job.train)) < 1000


def test_rows_are_made_once(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = work("text-generation", place, tmp_path)
    assert "rows: made in" in capsys.readouterr().err
    folder = str(Path(job.train.file).parent)
    assert len(place.storage.list(folder)) == 2, "train and validation, and nothing half made"
    spec = job.spec.with_values({"data.balance": "none", "training.epochs": 7})
    train.work(spec, preparation.prepare(spec, place.storage), place.storage)
    assert f"tokens of {len(job.train) + len(job.validation)} rows: kept from before" in capsys.readouterr().err
    assert len(place.storage.list(folder)) == 2


def test_rows_that_are_large_are_made_fewer_at_a_time() -> None:
    small, large = pd.DataFrame({"input": ["abc"] * 5000}), pd.DataFrame({"input": ["a" * 2**22] * 8})
    assert (making._size(small), making._size(large)) == (1024, 4)
    assert making._size(pd.DataFrame({"input": ["a" * 2**25]})) == 1


def test_other_rows_bounds_and_tokenizers_have_files_of_their_own(place: Place, tmp_path: Path) -> None:
    job = work("text-generation", place, tmp_path)
    texts = source(job.train, place)

    def file(frame: pd.DataFrame, spec: Spec) -> str:
        (made,) = tokens.kept(place.storage, {job.train.source: frame}, spec, job.labels)
        return made.file

    changed = [job.spec.with_values({key: value}) for key, value in (("training.max_length", 20), ("data.packing", 1))]
    files = [
        file(texts.iloc[1:], job.spec),
        file(texts.assign(label="x"), job.spec),
        *(file(texts, s) for s in changed),
    ]
    assert len({job.train.file, *files}) == 5
    assert file(texts, job.spec) == job.train.file
    tokenizer = Path(job.spec.base_model) / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert file(texts, job.spec) not in {job.train.file, *files}


def test_work_by_another_spec_has_its_rows_made_by_that(place: Place, tmp_path: Path) -> None:
    job = work("text-generation", place, tmp_path)
    same_rows = job.under(job.spec.with_values({"training.learning_rate": 0.5}))
    assert same_rows.train is job.train
    shorter = job.under(job.spec.with_values({"training.max_length": 3}))
    assert shorter.train.file != job.train.file
    answers = job.spec.bounds.answer
    assert job.train.open().lengths.max() > 3 + answers >= shorter.train.open().lengths.max()
    assert len(shorter.train) == len(job.train)


def test_of_a_mapped_file_nothing_is_held(place: Place, tmp_path: Path) -> None:
    job = work("text-generation", place, tmp_path)
    before = pa.total_allocated_bytes()
    data: Any = job.train.open()
    assert pa.total_allocated_bytes() == before
    assert not data.ids.parts[0][0].flags.owndata
