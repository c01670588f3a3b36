from __future__ import annotations

import pytest

from cluster.errors import NotFoundError
from jobs.data import dataset, preparation
from jobs.pipeline import Place
from jobs.spec import Spec


def test_versions_are_listed_oldest_first_and_found_by_how_they_begin(spec: Spec, place: Place) -> None:
    assert dataset.versions(place.storage) == []
    made = [preparation.prepare(spec.with_values({"training.seed": seed}), place.storage) for seed in range(3)]
    assert dataset.versions(place.storage) == dataset.versions(place.storage, "tiny") == made
    for version in made:
        assert dataset.find(place.storage, f"tiny/{version.version}") == version
        assert dataset.find(place.storage, version.version[:8]) == version


def test_a_version_that_is_not_meant_clearly_is_said(spec: Spec, place: Place) -> None:
    for seed in range(2):
        preparation.prepare(spec.with_values({"training.seed": seed}), place.storage)
    with pytest.raises(NotFoundError, match="is the start of 2 dataset versions \\(say which: tiny/"):
        dataset.find(place.storage, "tiny/")
    with pytest.raises(NotFoundError, match="see `rehone data list`"):
        dataset.find(place.storage, "other/0")


def test_a_version_is_written_once_and_a_changed_one_is_noticed(spec: Spec, place: Place) -> None:
    made = preparation.prepare(spec, place.storage)
    assert preparation.prepare(spec, place.storage) == made  # the time it was made as well
    assert made.intact(place.storage)
    path = f"{made.place}/train.parquet"
    table = place.storage.read_parquet(path)
    place.storage.write_parquet(path, table.slice(1))
    assert not made.intact(place.storage)
