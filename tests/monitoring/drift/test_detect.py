from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from cluster.store.storage import Storage
from jobs.inputs.texts import DESCRIPTORS
from jobs.spec import Spec
from jobs.targets.label import PREDICTED as LABEL
from monitoring.drift import quality
from monitoring.drift.compare import EMBEDDING, TOGETHER
from monitoring.drift.detect import CONFIDENCE, DriftResult, detect
from monitoring.windows import Window
from tests.monitoring.fakes import BEGAN, WORDS, drifted, result, sample

COLUMNS = (*DESCRIPTORS, CONFIDENCE, LABEL, EMBEDDING, TOGETHER)
SPEC = Spec.model_validate(
    {"name": "m", "base_model": "b", "data": {"source": "a.csv"}, "monitoring": {"false_alarm_rate": 0.01, "looks": 1}}
)

pytestmark = [
    # Evidently 0.7.23 reaches into numpy.core and drags in Litestar, which deprecates names of its own, at import.
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Call to deprecated function|Use of deprecated class):DeprecationWarning"),
]


def window(rows, number: int = 1, labelled: int = 0) -> Window:
    rows = rows.assign(prediction_id=[f"moods.1.{i:06d}" for i in range(len(rows))])
    return Window("moods", 1, number, BEGAN, BEGAN, rows, rows.head(labelled))


@pytest.fixture(scope="module")
def reference():
    return sample(200, np.random.default_rng(0))


@pytest.fixture(scope="module")
def quiet():
    return sample(80, np.random.default_rng(1))


@pytest.fixture(scope="module")
def moved():
    return sample(80, np.random.default_rng(2), shift=0.7)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def shifted(store, reference, moved) -> DriftResult:
    return detect(window(moved), reference, WORDS, SPEC, store)


def by_name(found: DriftResult):
    return {column.name: column for column in found.columns}


def test_a_window_like_the_reference_is_no_drift(storage, reference, quiet):
    found = detect(window(quiet, labelled=50), reference, WORDS, SPEC, storage)
    assert not found.drifted
    assert [column.name for column in found.columns] == list(COLUMNS)
    assert (found.key, found.rows, found.labelled, found.last) == ("1-1", 80, 50, "moods.1.000079")
    assert found.accuracy == (quiet["true"] == quiet["label"]).head(50).mean()
    assert found.reference_accuracy == (reference["true"] == reference["label"]).mean()
    assert DriftResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_shift_is_seen_in_every_column_that_moved(shifted):
    assert shifted.drifted
    assert shifted.accuracy is None
    assert {name for name, column in by_name(shifted).items() if column.drifted} >= {
        "text length",
        "unknown-word share",
        "embedding",
    }


def test_evidently_computes_the_same_numbers(store, shifted, reference, moved):
    """Its KS test is scipy's, and its MMD is the one whose threshold was calibrated."""
    found = by_name(shifted)
    assert found["confidence"].score == pytest.approx(ks_2samp(reference["confidence"], moved["confidence"]).pvalue)
    (stored,) = Path(store.url("drift", "workspace")).glob("*/snapshots/*.json")
    metrics = json.loads(stored.read_text())["metric_results"].values()
    (mmd,) = (m for m in metrics if m["display_name"] == "Drift in embeddings: embedding")
    assert mmd["value"] == pytest.approx(found["embedding"].score)


def test_a_new_label_is_drift(storage, reference, quiet):
    odd = quiet.assign(label=["pos", "neg", "meh", "pos"] * 20)
    assert by_name(detect(window(odd), reference, WORDS, SPEC, storage))["predicted label"].drifted


def test_the_reports_open_and_judging_again_replaces_them(storage, reference, quiet):
    for _ in range(2):
        found = detect(window(quiet, number=3), reference, WORDS, SPEC, storage)
    assert found.report == "drift/moods/1-3.html"
    page = storage.read_bytes(found.report).decode()
    assert "<html" in page[:200].lower()
    assert "unknown-word share" in page
    assert len(list(Path(storage.url("drift", "workspace")).glob("*/snapshots/*.json"))) == 1


def test_a_remote_root_gets_the_page_and_the_snapshot(reference, quiet):
    storage = Storage("memory://bucket/root")
    found = detect(window(quiet), reference, WORDS, SPEC, storage)
    assert storage.list("drift/moods") == ["1-1-summary.html", "1-1.html", "1-1.json"]
    assert storage.read_json("drift/moods/1-1.json")["metric_results"]
    assert storage.exists(found.report)


def test_empty_texts_and_one_label_are_data_too(storage, reference, quiet):
    odd = quiet.assign(input="", label="pos")
    assert detect(window(odd), reference.assign(label="pos"), WORDS, SPEC, storage).drifted


def test_evidently_gets_the_quality_on_what_is_labelled(storage, reference, quiet):
    found = detect(window(quiet, labelled=40), reference, WORDS, SPEC, storage)
    stored = [json.loads(file.read_text()) for file in Path(storage.url("drift")).glob("workspace/*/snapshots/*.json")]
    (made,) = (run for run in stored if run["name"] == "moods 1-1-quality")
    accuracy = next(m for m in made["metric_results"].values() if m["display_name"].startswith("Accuracy"))
    assert accuracy["value"] == pytest.approx(found.accuracy)


@pytest.mark.parametrize(("here", "there", "told"), [("abc", "abc", True), ("abc", "ab", False), ("a", "ab", False)])
def test_quality_of_labels_of_any_number(here, there, told):
    sides = [pd.DataFrame({"true": list(labels * 20), "label": list(labels[::-1] * 20)}) for labels in (there, here)]
    assert (quality.snapshot(*sides) is not None) == told


@pytest.mark.parametrize("found", [result(), drifted(accuracy=0.5, labelled=40)])
def test_a_result_survives_json(found):
    assert DriftResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.position.prediction_id == found.last


def test_importing_the_folder_does_not_import_what_is_slow():
    code = (
        "import sys, monitoring.watch, monitoring.journal, monitoring.judges.gate, monitoring.drift.detect\n"
        "print([name for name in ('evidently', 'mlflow', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
