"""Publishing and the gate's verdict on real models and a real registry, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import NotFoundError
from cluster.store.tracking import Tracker
from jobs.data import preparation
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TRAIN
from jobs.models import model, publish
from jobs.models.publish import Published
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.training import batches, train
from monitoring import hold, promotion, show
from monitoring.journal import Journal
from tests import tiny


@pytest.fixture
def whole(spec: Spec) -> Spec:
    values = {
        "method.name": "full",
        "data.split": {"train": 0.5, "validation": 0.2, "test": 0.3},
        "evaluation.min_slice_rows": 5,
        "evaluation.topics": 2,
    }
    return spec.with_values(values)


def trained(spec: Spec, dataset: DatasetVersion, place: Place, folder: Path, epochs: int, lie: str = "no") -> Path:
    """All weights after a bare torch loop, taught the opposite of every text that has the word `lie`."""
    import torch

    net = model.trainable(spec, dataset.labels)
    rows = dataset.rows(place.storage, TRAIN)
    labels = [
        dataset.labels.index(label) ^ (lie in text.split())
        for text, label in zip(rows["input"], rows["label"], strict=True)
    ]
    encoded = batches.encode(tiny.TASK.processor(spec.base_model), list(rows["input"]), labels, 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
    for epoch in range(epochs):
        for batch in batches.epoch([len(ids) for ids in encoded.ids], 16, epoch):
            net(**encoded.batch(batch)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save(net, None, folder)
    return folder


def published(spec: Spec, dataset: DatasetVersion, place: Place, folder: Path) -> Published:
    with Tracker(place.settings, spec.name).run("train", {}, {}) as run:
        return publish.publish(
            spec,
            dataset,
            folder,
            curve=[dict.fromkeys(("step", *train.CURVE), 0.5)],
            storage=place.storage,
            registry=place.registry,
            run=run,
        )


@pytest.mark.long
def test_one_that_passes_waits_for_a_person_where_the_spec_says_so_and_while_paused(
    whole: Spec, place: Place, tmp_path: Path
) -> None:
    dataset = preparation.prepare(whole, place.storage)
    good, asked = (
        trained(whole, dataset, place, tmp_path / "good", epochs=4),
        whole.with_values({"monitoring.approval": True}),
    )
    made = published(whole, dataset, place, good).version
    for spec in (asked, asked):  # again, as after a crash
        assert promotion.settle(spec, place, made).promote
        assert place.registry.find("tiny", "champion") is None
        assert place.registry.get("tiny", 1).aliases == ("challenger",)
    assert promotion.waits(whole, Journal(place.storage)) == ""
    hold.pause(Journal(place.storage), "tiny", "a holiday")
    assert promotion.settle(whole, place, made).promote
    assert place.registry.find("tiny", "champion") is None
    hold.resume(Journal(place.storage), "tiny")
    assert promotion.settle(whole, place, made).promote
    assert place.registry.champion("tiny").version == 1


@pytest.mark.slow
def test_an_untrained_version_is_refused_a_better_one_replaces_the_first_and_the_same_again_does_not(
    whole: Spec, place: Place, tmp_path: Path
) -> None:
    dataset = preparation.prepare(whole, place.storage)
    untrained = trained(whole, dataset, place, tmp_path / "untrained", epochs=0)
    poor = trained(whole, dataset, place, tmp_path / "poor", epochs=4, lie="good")
    good = trained(whole, dataset, place, tmp_path / "good", epochs=4)
    verdicts = [
        promotion.settle(whole, place, (made := published(whole, dataset, place, folder)).version)
        for folder in (untrained, poor, good, good)
    ]
    assert [verdict.promote for verdict in verdicts] == [False, True, True, False]
    assert place.registry.champion("tiny").version == 3
    assert place.registry.previous("tiny").version == 2
    assert "challenger" not in place.registry.get("tiny", 4).aliases
    *_, better, same = verdicts
    assert better.numbers["old_challenger"] > better.numbers["old_champion"] + 0.1
    assert better.numbers["old_p_value"] <= 0.05
    assert {check.rule for check in better.checks} == {"better", "slice", "latency", "size"}
    assert same.reasons[0].endswith("not better)")
    assert same.numbers["old_gain"] == 0
    _is_kept(same, place, made)
    assert "FAILED" in show.published(made, same)


def _is_kept(verdict: promotion.Verdict, place: Place, made: Published) -> None:
    tree = json.loads(json.dumps(verdict.to_dict()))
    *_, entry = Journal(place.storage).entries("tiny", "verdict")
    assert entry.body == tree
    folder = place.registry.download(made.version)
    assert json.loads((folder.parent / "verdict.json").read_text()) == tree
    tag = json.loads(place.registry.get("tiny", 4).tags["verdict"])
    assert tag["numbers"] == tree["numbers"]
    assert json.loads((folder / "scorecard.json").read_text())["old"]["slices"]
    assert [row["change"] for row in json.loads((folder / "robustness.json").read_text())] == [
        "typos",
        "case",
        "punctuation",
    ]
    assert json.loads((folder / "footprint.json").read_text())["weight_bytes"] > 0
    assert {path.name for path in (folder / "pictures").iterdir()} >= {
        "old-confusion.png",
        "old-reliability.png",
        "old-slices.png",
    }
    assert {"scores", "by found topic"} <= set(pd.read_parquet(folder / "reference.parquet").columns)


def test_a_retired_model_is_in_the_journal_by_whom_and_comes_back_by_a_rollback(place: Place, tmp_path: Path) -> None:
    with Tracker(place.settings, "tiny").run("made", {}, {}) as run:
        place.registry.register("tiny", run.id, str(tmp_path), {})
    place.registry.promote("tiny", 1)
    place.registry.try_out("tiny", 1)
    assert promotion.retire("tiny", place).version == 1
    assert place.registry.aliases()["tiny"] == {"previous": 1}
    begun, done = Journal(place.storage).entries("tiny", "retirement")
    assert (begun.state, done.state, done.body["version"]) == ("begun", "done", 1)
    assert done.body["by"]
    with pytest.raises(NotFoundError, match="has no champion"):
        promotion.retire("tiny", place)
    assert promotion.roll_back("tiny", place).version == 1
    assert place.registry.champion("tiny").version == 1
