from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import DataError, NotFoundError
from jobs.data import dataset, near, preparation
from jobs.data.split import SPLITS
from jobs.inputs.texts import key as normalise
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny


def feedback(count: int, seed: int = 9) -> pd.DataFrame:
    return pd.DataFrame(tiny.rows(count, seed))[["input", "label"]]


def test_the_same_data_and_spec_give_the_same_version(spec: Spec, place: Place, tmp_path: Path) -> None:
    first = preparation.prepare(spec, place.storage)
    elsewhere = tiny.write_csv(tmp_path / "moved.csv", tiny.rows(160))
    assert (
        preparation.prepare(spec.with_values({"data.source": str(elsewhere)}), place.storage).version == first.version
    )
    assert preparation.prepare(spec.with_values({"training.seed": 1}), place.storage).version != first.version
    changed = tiny.write_csv(tmp_path / "changed.csv", tiny.rows(159))
    assert preparation.prepare(spec.with_values({"data.source": str(changed)}), place.storage).version != first.version


def test_the_manifest_counts_what_is_there(spec: Spec, place: Place) -> None:
    made = preparation.prepare(spec, place.storage)
    assert dataset.read(place.storage, spec.name, made.version) == made
    for split in SPLITS:
        rows = made.rows(place.storage, split)
        assert rows["label"].value_counts().to_dict() == dict(made.counts[split])
    assert sum(map(made.size, SPLITS)) == 160


def test_check_writes_nothing(spec: Spec, place: Place) -> None:
    assert len(preparation.check(spec)) == 160
    assert not place.storage.exists("datasets")


def test_feedback_makes_a_new_version_that_keeps_the_old_splits(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    rows = feedback(100)
    made = preparation.extend(spec, place.storage, old, rows)
    assert (made.parent, made.origins[0], len(made.origins)) == (old.version, "source", 2)
    for split in SPLITS:
        both = made.rows(place.storage, split)
        assert list(made.part(both, dataset.OLD)["input"]) == list(old.rows(place.storage, split)["input"])
        assert len(made.part(both, dataset.NEW)) > 0
    texts = [normalise(t) for split in SPLITS for t in made.rows(place.storage, split)["input"]]
    assert len(texts) == len(set(texts))


def test_feedback_that_repeats_old_texts_does_not_leak(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    known = old.rows(place.storage, "test")[["input", "label"]]
    made = preparation.extend(spec, place.storage, old, pd.concat([known, feedback(40)]))
    new = made.part(made.rows(place.storage, "train"), dataset.NEW)
    assert not set(new["input"]) & set(known["input"])
    assert made.dropped["in the old version"] >= len(known)


def test_feedback_that_is_nearly_an_old_text_does_not_leak(spec: Spec, place: Place) -> None:
    spec = spec.with_values({"data.near_duplicates": 0.5})
    old = preparation.prepare(spec, place.storage)
    known = old.rows(place.storage, "test")
    known = known[known["input"].str.split().str.len() >= 6]
    nearly = pd.DataFrame({"input": known["input"] + " today", "label": known["label"]})
    made = preparation.extend(spec, place.storage, old, pd.concat([nearly, feedback(40)]))
    rows = made.all_rows(place.storage)
    assert not set(rows["input"]) & set(nearly["input"])
    assert made.dropped["near the old version"] >= len(nearly) > 0
    keys = list(rows["input"].map(normalise))
    assert all(rows["split"][a] == rows["split"][b] for a, b in near.pairs(keys, 0.5))


def test_feedback_of_one_label_is_enough_where_there_are_others(spec: Spec, place: Place) -> None:
    rows = feedback(80)
    made = preparation.extend(
        spec, place.storage, preparation.prepare(spec, place.storage), rows[rows["label"] == "positive"]
    )
    for split in SPLITS:
        new = made.part(made.rows(place.storage, split), dataset.NEW)
        assert set(new["label"]) == {"positive"}


@pytest.mark.parametrize("by", ["stratified", "group", "time", "rolling", "column"])
def test_no_version_leaks(spec: Spec, place: Place, tmp_path: Path, by: str) -> None:
    """Texts a word away from each other, in groups, at times: of the near ones one is kept, also by an extension."""
    draw = random.Random(by)
    rows: list[dict[str, str]] = []
    for i, row in enumerate(tiny.rows(110)):
        side = draw.choice(SPLITS)
        several = [row["input"], *(f"{row['input']} {word}" for word in draw.sample(tiny.FILLER, draw.randint(0, 2)))]
        same = {
            "label": row["label"],
            "document": str(i // 5),
            "side": side if by == "column" else "",
            "at": str(i // 3),
        }
        rows += [same | {"input": text, "document": "" if by == "column" else same["document"]} for text in several]
    draw.shuffle(rows)
    changes = {
        "data.source": str(tiny.write_csv(tmp_path / "near.csv", rows)),
        "data.near_duplicates": 0.4,
        "data.group": "document",
        "data.time": "at",
        "data.split": {"by": by, "column": "side" if by == "column" else None},
    }
    spec = spec.with_values(changes)
    first = preparation.prepare(spec, place.storage)
    for version in (first, preparation.extend(spec, place.storage, first, pd.DataFrame(rows[:40] + tiny.rows(60, 5)))):
        kept = version.all_rows(place.storage)
        grams = [near.grams(normalise(text)) for text in kept["input"]]
        near_pairs = [(a, b) for a, b in combinations(range(len(grams)), 2) if near.jaccard(grams[a], grams[b]) >= 0.4]
        assert near_pairs == []
        grouped = kept[kept["group"] != ""]
        assert grouped.groupby("group")["split"].nunique().le(1).all()


def test_slices_stay_with_their_rows(spec: Spec, place: Place) -> None:
    spec = spec.with_values({"data.slices": ["document"]})
    old = preparation.prepare(spec, place.storage)
    written = {row["input"]: row["document"] for row in tiny.rows(160)}
    kept = old.all_rows(place.storage)
    assert list(kept["document"]) == [written[text] for text in kept["input"]]
    made = preparation.extend(spec.with_values({"data.slices": []}), place.storage, old, feedback(40))
    rows = made.rows(place.storage, "test")
    assert made.slices == ("document",)
    assert set(made.part(rows, dataset.NEW)["document"]) == {""}
    assert "" not in set(made.part(rows, dataset.OLD)["document"])


@pytest.mark.parametrize(
    ("slices", "said"), [(["input"], "'input' is a name of rehone's own"), (["a", "a"], "names a column twice")]
)
def test_a_slice_has_a_name_of_its_own(spec: Spec, slices, said) -> None:
    with pytest.raises(ValueError, match=said):
        spec.with_values({"data.slices": slices})


def test_a_slice_that_is_no_column_is_named(spec: Spec) -> None:
    with pytest.raises(DataError, match=r"data\.slices: no column 'documents' \(did you mean 'document'\?\)"):
        preparation.check(spec.with_values({"data.slices": ["documents"]}))


def test_a_fold_leaves_out_what_comes_after_it(spec: Spec, place: Place) -> None:
    changes = {"data.time": "document", "data.split": {"by": "rolling", "folds": 2, "fold": 1}}
    made = preparation.prepare(spec.with_values(changes), place.storage)
    assert made.dropped == {"after the fold's test rows": 40}
    assert [made.size(split) for split in SPLITS] == [39, 39, 42]  # three rows have the same moment


def test_a_second_extension_is_new_against_the_first(spec: Spec, place: Place) -> None:
    first = preparation.extend(spec, place.storage, preparation.prepare(spec, place.storage), feedback(60, 8))
    second = preparation.extend(spec, place.storage, first, feedback(60, 9))
    assert second.parent == first.version
    rows = second.rows(place.storage, "train")
    assert list(second.part(rows, dataset.OLD)["input"]) == list(first.rows(place.storage, "train")["input"])


@pytest.mark.parametrize("count", [10, 11, 12, 13, 19])
def test_a_little_feedback_is_split_as_well(spec: Spec, place: Place, count: int) -> None:
    """Of so few rows not every split can have every label."""
    made = preparation.extend(spec, place.storage, preparation.prepare(spec, place.storage), feedback(count))
    new = {split: len(made.part(made.rows(place.storage, split), dataset.NEW)) for split in SPLITS}
    assert min(new.values()) >= 1
    assert new["train"] > new["validation"] + new["test"]
    assert new["test"] == -(-count * 2 // 10)


def test_feedback_with_an_unknown_label_is_named(spec: Spec, place: Place) -> None:
    rows = feedback(40)
    rows.loc[3, "label"] = "mixed"
    with pytest.raises(DataError, match="row 4 'mixed'"):
        preparation.extend(spec, place.storage, preparation.prepare(spec, place.storage), rows)


@pytest.mark.parametrize(("rows", "said"), [(feedback(5), "at least 10 are needed")])
def test_too_little_feedback_is_said(spec: Spec, place: Place, rows, said) -> None:
    with pytest.raises(DataError, match=said):
        preparation.extend(spec, place.storage, preparation.prepare(spec, place.storage), rows)


def test_a_version_that_is_not_there(place: Place) -> None:
    with pytest.raises(NotFoundError):
        dataset.read(place.storage, "tiny", "0" * 12)


def personal(folder: Path) -> Path:
    rows = tiny.rows(60)
    rows[4]["input"] += " ask ann@mail.org"
    return tiny.write_csv(folder / "personal.csv", rows)


def test_masked_data_holds_nothing_personal_not_even_what_was_dropped(spec: Spec, place: Place, tmp_path: Path) -> None:
    source = personal(tmp_path)
    rows = pd.read_csv(source)
    pd.concat([rows, rows.iloc[[4]]]).to_csv(source, index=False)
    changed = spec.with_values({"data.source": str(source), "data.pii": "mask"})
    made = preparation.prepare(changed, place.storage)
    texts = [t for s in SPLITS for t in made.rows(place.storage, s)["input"]]
    texts += list(place.storage.read_parquet(f"{made.place}/dropped.parquet").to_pandas()["input"])
    assert sum("<EMAIL>" in text for text in texts) == 2
    assert not any("@" in text for text in texts)
    assert preparation.prepare(changed.with_values({"data.pii": "keep"}), place.storage).version != made.version


def test_masking_holds_for_feedback_too(spec: Spec, place: Place) -> None:
    masked = spec.with_values({"data.pii": "mask"})
    rows = feedback(40)
    rows.loc[3, "input"] += " call +1 650 253 0000"
    made = preparation.extend(masked, place.storage, preparation.prepare(masked, place.storage), rows)
    texts = [t for s in SPLITS for t in made.rows(place.storage, s)["input"]]
    assert sum("<PHONE>" in text for text in texts) == 1


def corrected(spec: Spec, folder: Path, *lines: str) -> Spec:
    path = folder / "fixes.csv"
    path.write_text("\n".join(["row,input,label", *lines]) + "\n")
    return spec.with_values({"data.corrections": str(path)})


def test_corrections_change_the_version_and_their_place_does_not(spec: Spec, place: Place, tmp_path: Path) -> None:
    first, second = tiny.rows(160)[:2]
    other = "negative" if first["label"] == "positive" else "positive"
    lines = [f"1,{first['input']},{other}", f"2,{second['input']},"]
    fixed = corrected(spec, tmp_path, *lines)
    made = preparation.prepare(fixed, place.storage)
    assert made.version != preparation.prepare(spec, place.storage).version
    assert made.dropped == {"dropped by a correction": 1}
    rows = pd.concat([made.rows(place.storage, s) for s in SPLITS])
    assert list(rows[rows["row"] == 1]["label"]) == [other]
    assert 2 not in set(rows["row"])
    (tmp_path / "moved").mkdir()
    again = preparation.prepare(corrected(spec, tmp_path / "moved", *lines), place.storage)
    assert again.version == made.version == preparation.prepare(fixed, place.storage).version


def test_feedback_extends_a_corrected_version_without_its_file(spec: Spec, place: Place, tmp_path: Path) -> None:
    fixed = corrected(spec, tmp_path, f"2,{tiny.rows(160)[1]['input']},")
    old = preparation.prepare(fixed, place.storage)
    (tmp_path / "fixes.csv").unlink()
    made = preparation.extend(fixed, place.storage, old, feedback(40))
    assert made.rules["corrections"] == old.rules["corrections"]


def test_a_correction_written_from_masked_texts_fits_the_unmasked_ones(
    spec: Spec, place: Place, tmp_path: Path
) -> None:
    changed = spec.with_values({"data.source": str(personal(tmp_path))})
    text = pd.read_csv(changed.data.source)["input"][4].replace("ann@mail.org", "<EMAIL>")
    assert preparation.prepare(corrected(changed, tmp_path, f"5,{text},"), place.storage).dropped == {
        "dropped by a correction": 1
    }


def test_the_remedy_for_rare_labels_is_no_part_of_the_version(spec: Spec, place: Place) -> None:
    first = preparation.prepare(spec, place.storage)
    assert preparation.prepare(spec.with_values({"data.balance": "oversample"}), place.storage).version == first.version


def test_prepare_says_what_it_dropped_and_what_is_worth_a_thought(
    spec: Spec, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv(personal(tmp_path))
    rare = pd.concat([rows[rows["label"] == "positive"], rows[rows["label"] == "negative"].head(5), rows.iloc[[0]]])
    rare.to_csv(tmp_path / "personal.csv", index=False)
    changed = spec.with_values({"data.source": str(tmp_path / "personal.csv")})
    preparation.prepare(changed, place.storage)
    said = capsys.readouterr().err
    assert "dropped 1 duplicate: row" in said
    assert "email in 1 texts (data.pii: mask hides them): row" in said
    assert "rare labels (see data.balance): negative" in said
    preparation.prepare(changed.with_values({"data.pii": "mask", "data.balance": "oversample"}), place.storage)
    said = capsys.readouterr().err
    assert "data.pii" not in said
    assert "data.balance" not in said
