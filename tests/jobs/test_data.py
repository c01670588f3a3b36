from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import DataError, NotFoundError
from jobs import data, dataset
from jobs.clean import normalise
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.split import SPLITS
from tests import tiny


def feedback(count: int, seed: int = 9) -> pd.DataFrame:
    return pd.DataFrame(tiny.rows(count, seed))[["text", "label"]]


def test_the_same_data_and_spec_give_the_same_version(spec: Spec, place: Place, tmp_path: Path) -> None:
    first = data.prepare(spec, place.storage)
    elsewhere = tiny.write_csv(tmp_path / "moved.csv", tiny.rows(160))
    assert data.prepare(spec.with_values({"data.source": str(elsewhere)}), place.storage).version == first.version
    assert data.prepare(spec.with_values({"training.seed": 1}), place.storage).version != first.version
    changed = tiny.write_csv(tmp_path / "changed.csv", tiny.rows(159))
    assert data.prepare(spec.with_values({"data.source": str(changed)}), place.storage).version != first.version


def test_the_manifest_counts_what_is_there(spec: Spec, place: Place) -> None:
    made = data.prepare(spec, place.storage)
    assert dataset.read(place.storage, spec.name, made.version) == made
    for split in SPLITS:
        rows = made.rows(place.storage, split)
        assert rows["label"].value_counts().to_dict() == dict(made.counts[split])
    assert sum(map(made.size, SPLITS)) == 160


def test_check_writes_nothing(spec: Spec, place: Place) -> None:
    assert len(data.check(spec)) == 160
    assert not place.storage.exists("datasets")


def test_feedback_makes_a_new_version_that_keeps_the_old_splits(spec: Spec, place: Place) -> None:
    old = data.prepare(spec, place.storage)
    rows = feedback(100)
    made = data.extend(spec, place.storage, old, rows)
    assert (made.parent, made.origins[0], len(made.origins)) == (old.version, "source", 2)
    for split in SPLITS:
        both = made.rows(place.storage, split)
        assert list(made.part(both, dataset.OLD)["text"]) == list(old.rows(place.storage, split)["text"])
        assert len(made.part(both, dataset.NEW)) > 0
    texts = [normalise(t) for split in SPLITS for t in made.rows(place.storage, split)["text"]]
    assert len(texts) == len(set(texts))


def test_feedback_that_repeats_old_texts_does_not_leak(spec: Spec, place: Place) -> None:
    old = data.prepare(spec, place.storage)
    known = old.rows(place.storage, "test")[["text", "label"]]
    made = data.extend(spec, place.storage, old, pd.concat([known, feedback(40)]))
    new = made.part(made.rows(place.storage, "train"), dataset.NEW)
    assert not set(new["text"]) & set(known["text"])
    assert made.dropped["in the old version"] >= len(known)


def test_a_second_extension_is_new_against_the_first(spec: Spec, place: Place) -> None:
    first = data.extend(spec, place.storage, data.prepare(spec, place.storage), feedback(60, 8))
    second = data.extend(spec, place.storage, first, feedback(60, 9))
    assert second.parent == first.version
    rows = second.rows(place.storage, "train")
    assert list(second.part(rows, dataset.OLD)["text"]) == list(first.rows(place.storage, "train")["text"])


@pytest.mark.parametrize("count", [10, 11, 12, 13, 19])
def test_a_little_feedback_is_split_as_well(spec: Spec, place: Place, count: int) -> None:
    """Of so few rows not every split can have every label."""
    made = data.extend(spec, place.storage, data.prepare(spec, place.storage), feedback(count))
    new = {split: len(made.part(made.rows(place.storage, split), dataset.NEW)) for split in SPLITS}
    assert min(new.values()) >= 1
    assert new["train"] > new["validation"] + new["test"]
    assert new["test"] == -(-count * 2 // 10)


def test_feedback_with_an_unknown_label_is_named(spec: Spec, place: Place) -> None:
    rows = feedback(40)
    rows.loc[3, "label"] = "mixed"
    with pytest.raises(DataError, match="row 4 'mixed'"):
        data.extend(spec, place.storage, data.prepare(spec, place.storage), rows)


@pytest.mark.parametrize(("rows", "said"), [(feedback(5), "at least 10 are needed")])
def test_too_little_feedback_is_said(spec: Spec, place: Place, rows, said) -> None:
    with pytest.raises(DataError, match=said):
        data.extend(spec, place.storage, data.prepare(spec, place.storage), rows)


def test_a_version_that_is_not_there(place: Place) -> None:
    with pytest.raises(NotFoundError):
        dataset.read(place.storage, "tiny", "0" * 12)
