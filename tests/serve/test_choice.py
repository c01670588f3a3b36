from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cluster.errors import ClusterError
from serve.engines import choice, compiled, engine
from serve.versions.certificate import Measured

from . import fakes
from .conftest import Kept

OTHER = {"negative": "positive", "positive": "negative"}


def changed(folder: Path, copy: Path, **columns: Any) -> Path:
    """A copy of a version whose test rows are others."""
    shutil.copytree(folder, copy)
    rows = pd.read_parquet(copy / "reference.parquet")
    made = {name: make(rows) for name, make in columns.items()}
    rows.assign(**made).to_parquet(copy / "reference.parquet")
    return copy


def test_the_fastest_without_a_fault_is_chosen_and_pytorch_where_there_is_none() -> None:
    torch_, onnx = Measured("torch", 0.04, 0.0), Measured("onnx", 0.02, 1e-6)
    small = Measured("onnx-int8", 0.01, 0.01)
    assert choice.fastest([torch_, onnx, small]) == "onnx-int8"
    assert choice.fastest([torch_, onnx, Measured("onnx-int8", 0.01, 0.2, fault="far away")]) == "onnx"
    assert choice.fastest([torch_, Measured("onnx", fault="cannot be compiled")]) == "torch"
    assert choice.fastest([Measured("torch", 0.04, 0.5, fault="far away")]) == "torch"


@pytest.mark.long
def test_what_was_compiled_and_measured_is_found_by_the_next_replica(
    taught: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "engines"
    first = choice.loader("auto", kept)(taught.folder)
    assert engine.load(fakes.version(1), taught.folder, lambda _: first).labels == fakes.LABELS
    found = choice.measured(kept, taught.folder)
    assert [one.engine for one in found] == ["torch", "onnx", "onnx-int8", "openvino"]
    assert all(one.seconds and one.apart is not None and not one.fault for one in found)
    assert found[0].accuracy is None
    for fewer in found[2:]:
        assert fewer.accuracy == fewer.before == fewer.alike == 1.0
    (folder,) = kept.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "int8.onnx",
        f"measured-{torch.get_num_threads()}.json",
    }
    monkeypatch.setattr(compiled, "exported", None)
    monkeypatch.setattr(choice, "_seconds", None)
    again = choice.loader("auto", kept)(taught.folder)
    assert again.engine == first.engine
    assert [output.label for output in again(["good day", "bad day"])] == ["positive", "negative"]


@pytest.mark.long
def test_fewer_bits_are_refused_where_they_cost_accuracy_or_change_answers(taught: Kept, tmp_path: Path) -> None:
    def wrong(rows: pd.DataFrame) -> pd.Series:
        return rows["label"].map(OTHER)

    # As if the trainer had been right where eight bits are wrong.
    worse = changed(taught.folder, tmp_path / "worse", true=wrong, label=wrong)
    with pytest.raises(ClusterError, match=r"onnx-int8: eight bits cost accuracy: 0\.000, 1\.000 before"):
        choice.loader("onnx-int8", tmp_path / "kept")(worse)
    with pytest.raises(ClusterError, match=r"openvino: bfloat16 cost accuracy: 0\.000, 1\.000 before"):
        choice.loader("openvino", tmp_path / "kept")(worse)
    assert choice.loader("auto", tmp_path / "kept")(worse).engine in {"torch", "onnx"}
    # As if each had been right where the other is not: as good, and another model.
    other = changed(taught.folder, tmp_path / "other", label=wrong)
    with pytest.raises(ClusterError, match=r"eight bits change 100\.0% of the answers \(allowed: 2%\)"):
        choice.loader("onnx-int8", tmp_path / "kept")(other)


@pytest.mark.long
def test_what_cannot_be_compiled_or_disagrees_is_left_to_pytorch(
    taught: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = choice.loader("torch", tmp_path)(taught.folder)
    real = compiled.session

    def skewed(predictor: Any, file: Path, name: str) -> Any:
        made = real(predictor, file, name)
        ask = made._ask

        def other(**batch: Any) -> Any:
            said = ask(**batch)
            said.logits = said.logits + torch.tensor([3.0, -3.0])
            return said

        return predictor.through(other, name)

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "session", skewed)
        patch.setattr(compiled, "openvino", skewed)
        assert choice.loader("auto", tmp_path / "skewed")(taught.folder).engine == "torch"
        with pytest.raises(ClusterError, match=r"engine onnx: answers the golden inputs 0\.\d+ away from the trainer"):
            choice.loader("onnx", tmp_path / "skewed")(taught.folder)

    def fails(*_: object) -> Path:
        raise RuntimeError("Unsupported: an operator that nobody knows\nand a traceback")

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "exported", fails)
        made = choice.loader("auto", tmp_path / "failed")(taught.folder)
        assert made.engine == "torch"
        assert [o.scores for o in made(["good day"])] == [o.scores for o in plain(["good day"])]
        wanted = "engine onnx: cannot be compiled: Unsupported: an operator that nobody knows"
        with pytest.raises(ClusterError, match=wanted):
            choice.loader("onnx", tmp_path / "failed")(taught.folder)
    # It is tried again: what failed may have been a full disk.
    assert choice.loader("onnx", tmp_path / "failed")(taught.folder).engine == "onnx"


@pytest.mark.long
def test_a_node_keeps_the_versions_that_it_used_last(taught: Kept, tmp_path: Path) -> None:
    kept, made = tmp_path / "engines", []
    for number in range(4):
        folder = shutil.copytree(taught.folder, tmp_path / str(number))
        (folder / "card.md").write_text(f"version {number}")
        choice.loader("onnx", kept)(folder)
        made.append(choice._place(kept, folder))
    assert [path.exists() for path in made] == [False, True, True, True]


@pytest.mark.long
def test_texts_are_written_by_pytorch(taught: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.models.predictor.Predictor.compilable", False)
    assert choice.loader("auto", tmp_path / "kept")(taught.folder).engine == "torch"
    with pytest.raises(ClusterError, match="engine onnx is not for tasks that write texts"):
        choice.loader("onnx", tmp_path / "kept")(taught.folder)
    assert not (tmp_path / "kept").exists()
