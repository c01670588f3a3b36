"""A model's life as the loop writes it: windows, a drift, a retraining, a promotion, a rollback, one that waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cluster.tracking import Tracker
from jobs.pipeline import Place
from monitoring.budget import Cost
from monitoring.drift.detect import DriftResult
from monitoring.drift.estimate import Estimate
from monitoring.journal import BEGUN, DONE, Journal
from monitoring.policy import decide
from serve.predictions import prediction_log
from tests.monitoring import fakes

NAME = "tiny"
HOSTILE = "<script>document.title = 'owned'</script>"


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def tell(place: Place, spec: Any, windows: int = 14) -> Journal:
    """Two versions must be registered: 1 the champion, 2 the one after it."""
    clock = Clock(fakes.BEGAN)
    journal = Journal(place.storage, clock)
    journal.write(NAME, "verdict", DONE, "1", verdict(promote=True, reason="first version, accuracy 0.89 on 60 rows"))
    moved(journal, "promotion", "1-settled", 1)
    history: list[Any] = []
    for number in range(1, windows + 1):
        clock.now = fakes.BEGAN + timedelta(hours=number)
        drifts = number > windows // 2
        result = window(number, 1, clock.now, drifts=drifts, accuracy=0.72 if drifts else 0.89)
        journal.write(NAME, "window", BEGUN, result.key, {"rows": result.rows})
        journal.write(NAME, "window", DONE, result.key, result.to_dict())
        made = decide(
            result,
            history,
            clock.now,
            spec.monitoring,
            labels_waiting=120,
            champion_age=timedelta(days=1),
            running=False,
            cost=Cost(price=0.4, spent=0.4),
            regression=None,
        )
        history.append(made)
        journal.write(NAME, "decision", DONE, made.key, made.to_dict())
        place.storage.write_bytes(result.page, f"<h1>what moved {result.key}</h1>{HOSTILE}".encode())
        place.storage.write_bytes(result.report, f"<h1>Evidently {result.key}</h1>".encode())
    key = history[-1].key
    body = {"submission_id": f"{NAME}-retrain-{key}", "workers": 2}
    journal.write(NAME, "retrain", BEGUN, key, body)
    clock.now += timedelta(minutes=40)
    journal.write(NAME, "retrain", DONE, key, {**body, "status": "SUCCEEDED"})
    journal.write(NAME, "verdict", DONE, "2", verdict(promote=True, reason=f"accuracy 0.84 {HOSTILE}"))
    return journal


def verdict(*, promote: bool, reason: str) -> dict[str, Any]:
    return {"promote": promote, "reasons": [reason], "numbers": {}, "checks": []}


def moved(journal: Journal, kind: str, key: str, version: int) -> None:
    journal.write(NAME, kind, BEGUN, key, {"version": version})
    journal.write(NAME, kind, DONE, key, {"version": version})


def window(number: int, version: int, end: datetime, *, drifts: bool, accuracy: float) -> DriftResult:
    made = fakes.drifted() if drifts else fakes.result()
    key = f"{version}-{number}"
    return replace(
        made,
        model=NAME,
        version=version,
        number=number,
        start=end - timedelta(hours=1),
        end=end,
        last=f"{NAME}.{version}.{number:06d}",
        accuracy=accuracy,
        labelled=80,
        estimated=Estimate(0.88 - 0.05 * drifts, 0.8, 0.9, 0.01),
        page=f"drift/{NAME}/{key}-summary.html",
        report=f"drift/{NAME}/{key}.html",
    )


def registered(place: Place, folder: Path, versions: int = 2) -> None:
    """Versions with a card each; the first is champion, the last one passed and waits."""
    folder.mkdir()
    for number in range(1, versions + 1):
        (folder / "card.html").write_text(f"<h1>card of version {number}</h1>{HOSTILE}")
        with Tracker(place.settings, NAME).run("train", {}, {"kind": "test"}) as run:
            source = run.log_folder(folder, "model")
        place.registry.register(NAME, run.id, source, {})
        if number == 1:
            place.registry.promote(NAME, 1)


def logged(place: Place, windows: int = 14) -> None:
    """Answers, two minutes and a half a window's time apart, all with true labels; from the middle on more are wrong."""
    rng = np.random.default_rng(0)
    rows = fakes.sample(windows * 24, rng)
    wrong = (np.arange(len(rows)) > len(rows) // 2) & (rng.random(len(rows)) < 0.2)
    rows["true"] = np.where(wrong, np.where(rows["label"] == "pos", "neg", "pos"), rows["true"])
    ids = [f"{NAME}.1.{at:06d}" for at in range(len(rows))]
    times = [fakes.BEGAN + timedelta(seconds=150 * (at + 1)) for at in range(len(rows))]
    records = [
        {**row, "prediction_id": one, "at": at, "day": f"{at:%Y-%m-%d}", "model": NAME, "version": 1, "scores": "{}"}
        for one, at, row in zip(ids, times, rows.drop(columns="true").to_dict("records"), strict=True)
    ]
    prediction_log(place.storage).append(records)
    fakes.feedback(place.storage, dict(zip(ids, rows["true"], strict=True)), at=times[-1], model=NAME)
