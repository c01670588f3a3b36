"""The storage root backed up, lost and restored: what served before answers the same again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.store.backup import backup, restore
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import promotion
from tests.monitoring.test_promotion import published, trained

ANSWER = """
import json, sys
from cluster.settings import Settings
from jobs.data import dataset
from jobs.pipeline import Place
from jobs.models.predictor import Predictor
from monitoring.journal import Journal

place = Place.from_settings(Settings(storage=sys.argv[1]))
champion = place.registry.champion("tiny")
folder = place.registry.download(champion)
golden = json.loads((folder / "golden.json").read_text())
scores = [list(output.scores.values()) for output in Predictor.load(folder)(golden["inputs"])]
gap = max(abs(a - b) for ours, theirs in zip(scores, golden["scores"]) for a, b in zip(ours, theirs))
rows = len(dataset.find(place.storage, f"tiny/{champion.tags['dataset']}").rows(place.storage, "train"))
kinds = sorted({entry.kind for entry in Journal(place.storage).entries("tiny")})
print(json.dumps({"version": champion.version, "gap": gap, "rows": rows, "kinds": kinds}))
"""


def answered(place: Place) -> dict[str, object]:
    """By a new process: MLflow's database is open in this one."""
    call = [sys.executable, "-W", "ignore", "-c", ANSWER, place.settings.storage_root]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_lost_root_is_restored_and_answers_as_before(spec: Spec, place: Place, tmp_path: Path) -> None:
    whole = spec.with_values({"method.name": "full", "evaluation.min_slice_rows": 5, "evaluation.topics": 2})
    data = preparation.prepare(whole, place.storage)
    made = published(whole, data, place, trained(whole, data, place, tmp_path / "good", epochs=4))
    assert promotion.settle(whole, place, made.version).promote
    before = answered(place)
    assert before["version"] == 1
    assert float(str(before["gap"])) < 1e-5
    backup(place.settings, tmp_path / "backup.tar.gz")
    shutil.rmtree(place.settings.storage_root)
    restore(place.settings, tmp_path / "backup.tar.gz")
    assert answered(place) == before
