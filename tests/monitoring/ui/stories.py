"""A model's life as the loop writes it, two days long: drift that waits for labels, a retraining and its promotion, a
pause, a version that labels show to be worse and the way back from it, a job that fails, a version that waits.

Windows are decided on by the policy itself; what it decides is then written, row by row, as the watch, the job and the
gate write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cluster.store.tracking import Tracker
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import budget, hold
from monitoring.drift.compare import ColumnDrift
from monitoring.drift.detect import DriftResult
from monitoring.drift.estimate import Estimate
from monitoring.journal import BEGUN, DONE, FAILED, RETRAIN, Journal
from monitoring.judges.regression import Regression
from monitoring.policy import Decision, decide
from serve.log.predictions import prediction_log
from tests.monitoring import fakes

NAME = "tiny"
HOSTILE = "<script>document.title = 'owned'</script>"
VERSIONS = 4
BEGAN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
ANSWERS = 72
"""To a window, every other one with a true label."""


@dataclass
class Life:
    """A journal and a clock that goes on a second with each row."""

    place: Place
    spec: Spec
    now: datetime = BEGAN
    history: list[Decision] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    @property
    def journal(self) -> Journal:
        return Journal(self.place.storage, self.clock)

    def write(self, kind: str, state: str, key: str, body: Mapping[str, Any]) -> None:
        assert self.journal.write(NAME, kind, state, key, body)

    def window(self, version: int, number: int, accuracy: float, labels: int, **told: Any) -> Decision:
        """An hour of answers: logged, judged and decided on."""
        start, self.now = self.now, self.now + timedelta(hours=1)
        accuracy = self._answered(version, number, start, accuracy)
        result = window(version, number, start, self.now, accuracy, moved=told.pop("moved", False))
        self.write("window", BEGUN, result.key, {"rows": result.rows})
        self.write("window", DONE, result.key, result.to_dict())
        self.place.storage.write_bytes(result.page, f"<h1>what moved {result.key}</h1>{HOSTILE}".encode())
        self.place.storage.write_bytes(result.report, f"<h1>Evidently {result.key}</h1>".encode())
        held = hold.paused(self.journal.entries(NAME))
        made = decide(
            result,
            self.history,
            self.now,
            self.spec.monitoring,
            labels_waiting=labels,
            champion_age=timedelta(hours=number),
            running=False,
            cost=budget.cost(self.journal.entries(NAME, RETRAIN), self.now, 2),
            paused=hold.said(held) if held else "",
            regression=told.get("regression"),
        )
        self.history.append(made)
        self.write("decision", DONE, made.key, made.to_dict())
        return made

    def _answered(self, version: int, number: int, start: datetime, accuracy: float) -> float:
        """The accuracy of the rows that have a label."""
        rows = fakes.sample(ANSWERS, self.random)
        right = self.random.random(ANSWERS) < accuracy
        other = np.where(rows["label"] == "pos", "neg", "pos")
        rows["true"] = np.where(right, rows["label"], other)
        ids = [f"{NAME}.{version}.{number:03d}{at:03d}" for at in range(ANSWERS)]
        times = [start + timedelta(minutes=60 * (at + 1) / ANSWERS) for at in range(ANSWERS)]
        facts = {"model": NAME, "version": version, "scores": "{}"}
        answers = rows.drop(columns="true").to_dict("records")
        prediction_log(self.place.storage).append(
            [
                {**row, **facts, "prediction_id": one, "at": at, "day": f"{at:%Y-%m-%d}"}
                for row, one, at in zip(answers, ids, times, strict=True)
            ]
        )
        known = dict(zip(ids[::2], rows["true"][::2], strict=True))
        fakes.feedback(self.place.storage, known, at=times[-1], model=NAME)
        return float(right[::2].mean())

    def retrained(self, key: str, minutes: int, status: str = "SUCCEEDED") -> None:
        body = {"submission_id": f"{NAME}-retrain-{key}", "workers": 2}
        self.write("retrain", BEGUN, key, body)
        self.now += timedelta(minutes=minutes)
        self.write("retrain", DONE if status == "SUCCEEDED" else FAILED, key, {**body, "status": status})

    def judged(self, version: int, reason: str, *, promote: bool = True) -> None:
        self.write("evaluated", DONE, str(version), {"version": version, "run": "r"})
        said = {"promote": promote, "reasons": [reason], "numbers": {}, "checks": []}
        self.write("verdict", DONE, str(version), said)

    def moved(self, kind: str, key: str, version: int, **by: str) -> None:
        for state in (BEGUN, DONE):
            self.write(kind, state, key, {"version": version} | by)


def tell(place: Place, spec: Spec) -> Journal:
    """As many versions as VERSIONS must be registered."""
    life = Life(place, spec)
    life.judged(1, "first version, accuracy 0.89 on 60 rows")
    life.moved("promotion", "1-settled", 1)
    for number in range(1, 8):
        life.window(1, number, 0.9, 0)
    made = [life.window(1, 8 + hour, 0.7, 60 * (hour + 1), moved=True) for hour in range(4)]
    assert [decision.action for decision in made] == ["keep", "keep", "wait", "retrain"]
    life.retrained(made[-1].key, 40)
    life.judged(2, "0.84 vs 0.71 on 400 new rows; +0.2 points on 346 old ones")
    life.moved("promotion", "2-settled", 2)
    for number in range(1, 6):
        life.window(2, number, 0.87, 20)
    life.journal.write(NAME, "pause", BEGUN, "1", {"by": "ann@desk", "why": f"labels are checked {HOSTILE}"})
    held = [life.window(2, number, 0.86, 230, moved=True) for number in range(6, 9)][-1]
    assert (held.action, held.reasons[-1][:12]) == ("wait", "paused since")
    hold.resume(life.journal, NAME, by="ann@desk")
    life.judged(3, "0.88 vs 0.86 on 300 new rows")
    life.moved("promotion", "3-1", 3, by="ann@desk")
    life.window(3, 1, 0.74, 40)
    worse = Regression(2, 1, 60, 0.72, 0.87, 0.0004, 0.0025, worse=True)
    back = life.window(3, 2, 0.71, 60, regression=worse)
    assert back.action == "roll back"
    life.moved("rollback", back.key, 2)
    again = [life.window(2, 9 + hour, 0.8, 80 * (hour + 1), moved=True) for hour in range(3)]
    assert again[-1].action == "retrain"
    life.retrained(again[-1].key, 12, "FAILED")
    life.window(2, 12, 0.78, 190, moved=True)
    assert life.window(2, 13, 0.78, 280, moved=True).action == "retrain"
    life.retrained(life.history[-1].key, 35)
    life.judged(4, f"accuracy 0.86 vs 0.79 {HOSTILE}")
    life.write("awaits", DONE, "4", {"version": 4, "why": "monitoring.approval wants a person's word"})
    return life.journal


def window(version: int, number: int, start: datetime, end: datetime, accuracy: float, *, moved: bool) -> DriftResult:
    made = fakes.drifted() if moved else fakes.result()
    p_value = 0.0004 if moved else 0.6
    words = ColumnDrift("text length", "ks", p_value, p_value, 0.0017, drifted=moved)
    key = f"{version}-{number}"
    return replace(
        made,
        model=NAME,
        version=version,
        number=number,
        start=start + timedelta(seconds=1),
        end=end,
        last=f"{NAME}.{version}.{number:06d}",
        columns=(words, *made.columns),
        rows=ANSWERS,
        accuracy=accuracy,
        labelled=ANSWERS // 2,
        estimated=Estimate(0.88 - 0.05 * moved, 0.8, 0.9, 0.01),
        page=f"drift/{NAME}/{key}-summary.html",
        report=f"drift/{NAME}/{key}.html",
    )


def registered(place: Place, folder: Path) -> None:
    """Versions with a card each: 2 is champion, 3 was, the last one passed and waits."""
    folder.mkdir()
    for number in range(1, VERSIONS + 1):
        (folder / "card.html").write_text(f"<h1>card of version {number}</h1>{HOSTILE}")
        with Tracker(place.settings, NAME).run("train", {}, {"kind": "test"}) as run:
            source = run.log_folder(folder, "model")
        place.registry.register(NAME, run.id, source, {})
        if number < VERSIONS:
            place.registry.promote(NAME, number)
    place.registry.promote(NAME, 2)
