"""Each task from its rows to answers over HTTP, in this process: no Ray, everything else as it is."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from cluster.errors import UserError
from jobs import pipeline, tasks
from jobs.data import intake, preparation
from jobs.models import model, publish
from jobs.pipeline import Place
from jobs.plan import plan
from jobs.spec import Spec
from jobs.training import loop, train
from monitoring import promotion
from monitoring.drift.detect import detect
from monitoring.windows import next_window
from serve.engines import engine
from serve.engines.engine import Answered
from serve.http import app
from serve.log.predictions import tables
from serve.log.spool import Spool
from serve.many.models import One
from serve.service import Service
from tests.serve import fakes

from . import projects

pytestmark = [
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Call to deprecated function|Use of deprecated class):DeprecationWarning"),
]


def trained(spec: Spec, place: Place, folder: Path) -> publish.Published:
    """The spec's model after a training in this process, registered."""
    data = preparation.prepare(spec, place.storage)
    curve: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        if metrics["validation_loss"] < min((one["validation_loss"] for one in curve), default=math.inf):
            shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        curve.append(metrics)

    loop.run(train.work(spec, data, place.storage), rank=0, world=1, threads=1, report=report)
    best = min(curve, key=lambda metrics: metrics["validation_loss"])
    assert best["validation_loss"] < 0.9 * curve[0]["validation_loss"]
    assert best["validation_accuracy"] > curve[0]["validation_accuracy"]
    with pipeline.open_run(spec, data, place, "train") as run:
        return publish.publish(spec, data, folder, curve=curve, storage=place.storage, registry=place.registry, run=run)


class Server:
    """The application over a version, a spool and a log, all real."""

    def __init__(self, spec: Spec, place: Place, folder: Path) -> None:
        champion = place.registry.champion(spec.name)
        self.engine = engine.load(champion, place.registry.download(champion))
        self.spool, self.name, self.place = Spool(folder), spec.name, place
        service = Service(
            spec.name, self.spool, lambda: self.engine, self._answer, take=intake.taker(spec), explain_steps=4
        )
        self.api = app.build(One(service, fakes.Follower()), app.Limits(predict=64, explain=2, characters=10**7))

    async def _answer(self, texts: Sequence[str]) -> Answered:
        return self.engine.answer(texts)

    def post(self, path: str, body: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.api), base_url="http://test") as client:
                return await client.post(path, json=body)

        return asyncio.run(ask())

    def predict(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        answer = self.post(f"/v1/models/{self.name}/predict", {"inputs": list(inputs)})
        assert answer.status_code == 200, answer.text
        made: list[dict[str, Any]] = answer.json()["predictions"]
        return made


@pytest.mark.long
@pytest.mark.parametrize("task", list(projects.PROJECTS))
def test_from_rows_to_answers_and_a_window(task: str, place: Place, process_group: None, tmp_path: Path) -> None:
    spec = projects.spec(task, tmp_path / "project")
    published = trained(spec, place, tmp_path / "kept")
    card = published.scorecards["old"]
    metrics = set(tasks.get(task).targets.METRICS)
    assert set(card.metrics) == metrics | (set() if tasks.get(task).targets.LISTED else {"recall_at_10", "mrr_at_10"})
    # The gate holds a first version against always giving the commonest answer.
    verdict = promotion.settle(spec, place, published.version)
    assert verdict.promote, verdict.reasons
    server = Server(spec, place, tmp_path / "spool")
    rows = preparation.prepare(spec, place.storage).rows(place.storage, "test")
    inputs = list(rows["input"])[:40]
    answers = server.predict(inputs)
    folder = place.registry.download(place.registry.champion(spec.name))
    reference = pd.read_parquet(folder / "reference.parquet")
    wanted = dict(zip(reference["input"], reference["label"], strict=True))
    assert [a["label"] for a in answers] == [wanted[given] for given in inputs], "served as evaluated"
    assert all(0 <= a["confidence"] <= 1 for a in answers)
    # One at a time they are the same as together.
    assert [server.predict([given])[0]["label"] for given in inputs[:5]] == [a["label"] for a in answers[:5]]
    truth = [
        {"prediction_id": a["prediction_id"], "label": label} for a, label in zip(answers, rows["label"], strict=False)
    ]
    assert server.post("/v1/feedback", {"feedback": truth}).json() == {"accepted": len(truth)}
    refused = server.post(f"/v1/models/{spec.name}/explain", {"inputs": inputs[:1]})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "the task has no explanations (they are of tasks whose answer is one label)",
    )
    if task == "sentence-similarity":
        said = server.post("/v1/embeddings", {"model": spec.name, "input": inputs[:2]}).json()["data"]
        assert [np.linalg.norm(one["embedding"]) for one in said] == pytest.approx([1, 1], rel=1e-5)
    server.spool.flush(tables(place.storage))
    window = next_window(place.storage, spec.name, server.engine.version.version, 20)
    assert window is not None
    vocabulary = tasks.get(task).inputs.vocabulary(rows["input"])
    found = detect(window, reference, vocabulary, spec, place.storage)
    targets = tasks.get(task).targets
    known = sorted({part for answer in (*reference["true"], *reference["label"]) for part in targets.parts(answer)})
    watched = targets.watched([], known)
    assert len(watched.columns)
    assert {column.name for column in found.columns} >= set(watched)
    assert found.labelled == 20
    assert found.accuracy == pytest.approx(np.mean(window.measured["true"] == window.measured["label"]))


@pytest.mark.parametrize("task", list(projects.PROJECTS))
def test_a_plan_counts_what_training_keeps(task: str, place: Place, tmp_path: Path) -> None:
    planned = plan.make(projects.spec(task, tmp_path / "project"), place.settings)
    assert planned.need.activations > 0
    assert planned.fits


def test_a_wrong_true_label_is_refused_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    fault = tasks.get("token-classification").targets.fault
    assert fault('[{"start": 0, "end": 4, "label": "City"}]', ["Zip"]) == "'City' is no label; labels are Zip"
    assert "overlap at character 2" in fault(
        '[{"start": 0, "end": 4, "label": "Zip"}, {"start": 2, "end": 6, "label": "Zip"}]', ["Zip"]
    )
    assert tasks.get("text-generation").targets.fault(" ", []) == "an empty text is no answer"


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    spec = projects.spec("text2text-generation", tmp_path / "project")
    for task in ("text-generation", "sentence-similarity"):
        with pytest.raises(UserError, match=f"a t5 model is none for {task}"):
            model.check(
                spec.with_values({"task": task, "evaluation.metric": next(iter(tasks.get(task).targets.METRICS))})
            )


def test_what_needs_one_label_says_so(place: Place, tmp_path: Path) -> None:
    spec = projects.spec("token-classification", tmp_path / "project")
    with pytest.raises(ValueError, match=r"data\.balance: oversample needs one label a row"):
        spec.with_values({"data.balance": "oversample"})
    with pytest.raises(UserError, match="a backtest is for tasks whose answer is one label"):
        tasks.require_labels(spec.task, "a backtest")
