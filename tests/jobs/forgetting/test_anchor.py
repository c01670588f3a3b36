from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cluster.errors import DataError
from jobs import specfile
from jobs.data import preparation
from jobs.forgetting import anchor
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.tasks.task import Output
from tests import tiny


class Positive:
    """Answers `positive` to everything."""

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        return [Output("positive", 0.9, {"positive": 0.9}, np.zeros(4, np.float32)) for _ in texts]


def with_file(spec: Spec, path: Path, rows: list[dict[str, str]]) -> Spec:
    return spec.with_values({"evaluation.anchor": str(tiny.write_csv(path, rows))})


def test_it_is_the_old_test_rows_unless_a_file_is_named(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    new = preparation.extend(spec, place.storage, old, pd.DataFrame(tiny.rows(60, seed=9)))
    made = anchor.load(spec, new, place.storage)
    assert set(made.rows["input"]) == set(old.rows(place.storage, "test")["input"])
    assert len(made.new) == new.size("test") - old.size("test")
    measured = anchor.measure(Positive(), made, new.labels, spec)
    assert measured.anchor == old.counts["test"]["positive"] / old.size("test")
    assert measured.new == (made.new["label"] == "positive").mean()


def test_without_rows_of_a_new_kind_there_is_no_number_for_them(spec: Spec, place: Place) -> None:
    old = preparation.prepare(spec, place.storage)
    assert anchor.measure(Positive(), anchor.load(spec, old, place.storage), old.labels, spec).new is None


def test_rows_of_a_file_that_are_trained_on_are_left_out_and_said(
    spec: Spec, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = preparation.prepare(spec, place.storage)
    seen = made.rows(place.storage, "train").head(3)[["input", "label"]].to_dict("records")
    fresh = [{"input": f"unseen {r['input']}", "label": r["label"]} for r in tiny.rows(5, seed=7)]
    mixed = with_file(spec, tmp_path / "anchor.csv", [*seen, *fresh])
    loaded = anchor.load(mixed, made, place.storage)
    assert list(loaded.rows["input"]) == [row["input"] for row in fresh]
    assert "3 of 8 rows are trained on and left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="every row of it is a training row"):
        anchor.load(with_file(spec, tmp_path / "seen.csv", seen), made, place.storage)


def test_a_file_that_cannot_be_used_is_found_by_a_check(spec: Spec, tmp_path: Path) -> None:
    anchor.check(spec)
    with pytest.raises(DataError, match="no such file"):
        anchor.check(spec.with_values({"evaluation.anchor": str(tmp_path / "none.csv")}))
    with pytest.raises(DataError, match="'happy'"):
        anchor.check(with_file(spec, tmp_path / "odd.csv", [{"input": "so", "label": "happy"}]))


def test_its_path_is_relative_to_the_spec_file(tmp_path: Path, base_model: Path) -> None:
    import yaml

    tree = tiny.tree(tmp_path / "data.csv", base_model)
    tree["evaluation"]["anchor"] = "kept/anchor.csv"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(tree))
    assert specfile.load(tmp_path / "spec.yaml").evaluation.anchor == str(tmp_path / "kept" / "anchor.csv")
