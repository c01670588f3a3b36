"""The whole loop on real data, top to bottom: train on tweets, serve, meet movie reviews, notice, retrain, promote.

Nothing here is a stand-in: Ray Tune, Ray Train with DeepSpeed and LoRA, MLflow, Ray Serve over HTTP, Evidently and a
Ray job do the work; this page only plays the users and writes down what happened. Traffic is in `traffic.py`, the
picture in `demo_picture.py`.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.console import say
from cluster.errors import RehoneError
from cluster.session import connect
from cluster.settings import Settings
from cluster.store.registry import CHAMPION
from cluster.submission.submit import Jobs
from jobs import pipeline, show, specfile
from jobs.inputs import texts
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import controller, promotion
from monitoring import show as show_
from monitoring.launcher import StandingCluster
from monitoring.policy import Decision
from serve import rollout
from serve.client import Client
from serve.log.predictions import prediction_log

from . import demo_picture, sentiment_data
from .traffic import Row, Traffic

SPEC = Path(__file__).resolve().parent / "sentiment.yaml"


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `overrides` are the spec's."""

    calm: int = 500
    """Tweets in phase 1."""
    shift_most: int = 4000
    """Movie sentences sent in phase 2, at most, while waiting for the alarm and for labels."""
    after: int = 600
    """Movie sentences, and as many tweets as there are left, in phase 3."""
    labelled_share: float = 0.8
    label_delay: int = 200
    """Predictions that pass before the true label of one arrives."""
    overrides: tuple[str, ...] = (
        "monitoring.window=250",
        "monitoring.check_seconds=2",
        "monitoring.consecutive=2",
        "monitoring.min_labels=2000",
        "serving.port=0",
        "retrain.epochs=2",
    )


@dataclass
class Story:
    """What happened, as it happens."""

    began: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)
    decisions: list[tuple[str, Decision]] = field(default_factory=list)
    """With the phase of the traffic each one fell in."""
    marks: dict[str, int] = field(default_factory=dict)
    """Number of predictions sent when something happened: shift, alarm, retrain, promotion."""
    watch: Future[None] | None = None
    at: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        say(f"== {name}: {what}")
        began = time.monotonic()
        yield
        self.stages[name] = round(time.monotonic() - began, 1)

    def mark(self, name: str, traffic: Traffic) -> None:
        if name not in self.marks:
            self.marks[name], self.at[name] = len(traffic.sent), time.monotonic()

    def wait_for(self, happened: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Raises RehoneError when it did not happen in time, and what the watch raised when that has ended."""
        until = time.monotonic() + seconds
        while not happened():
            if self.watch is not None and self.watch.done():
                self.watch.result()
            if time.monotonic() > until:
                raise RehoneError(f"{otherwise} within {seconds:g} s")
            time.sleep(0.2)


def run(settings: Settings, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the loop in a storage root of its own and return the summary. Raises RehoneError when a stage did not happen.

    It always starts from nothing, so that a run that was killed leaves nothing behind that matters.
    """
    root = Path(settings.storage_root) / "demo"
    shutil.rmtree(root, ignore_errors=True)
    settings = settings.model_copy(update={"storage": str(root / "store")})
    sizes, story = Sizes(), Story()
    spec, place = specfile.load(SPEC, [*sizes.overrides, *overrides]), Place.from_settings(settings)
    with story.stage("fetch", "sentiment data rated by people"):
        rows = _rows(sentiment_data.fetch())
    with connect(settings, num_cpus=pipeline.cpus(spec), dashboard=True) as jobs:
        _train(spec, place, story)
        with story.stage("serve", "the champion over HTTP"):
            url = rollout.start(spec, settings)
            say(f"   {url}/docs")
        asking = Client(url, spec.name, patience=0)  # what fails is to be counted
        with asking as client, _watching(spec, place, str(jobs), story, traffic := Traffic(client)):
            _calm(rows["tweets"][: sizes.calm], story, traffic, spec)
            _shift(rows["movies"], sizes, story, traffic, place, spec)
            _after(rows["movies"][-sizes.after :], rows["tweets"][sizes.calm :][: sizes.after], story, traffic)
        with story.stage("drain", "stop serving; every spool moves to the log"):
            rollout.stop()
    summary = _summary(spec, place, story, traffic)
    _keep(summary, traffic, story, root)
    _check(summary)
    return summary


def _rows(paths: dict[str, Path]) -> dict[str, list[Row]]:
    """Traffic: tweets that the spec never sees, and movie sentences, in a fixed random order."""
    known = {texts.key(row["text"]) for row in sentiment_data.read(paths["train"])}
    tweets = [row for row in sentiment_data.read(paths["tweets"]) if sentiment_data.held_out(row)]
    found = {
        "tweets": [r for r in tweets if texts.key(r["text"]) not in known],
        "movies": sentiment_data.read(paths["movies"]),
    }
    for rows in found.values():
        random.Random(0).shuffle(rows)  # noqa: S311 - an order, not a secret
    return {name: [Row(r["text"], r["label"]) for r in rows] for name, rows in found.items()}


def _train(spec: Spec, place: Place, story: Story) -> None:
    with story.stage("prepare", "clean, split, write a dataset version"):
        data = pipeline.prepare(spec, place)
        say(show.dataset(data))
    with story.stage("sweep", f"{spec.sweep.trials} trials, {spec.sweep.scheduler}"):
        best, swept = pipeline.tune_spec(spec, data, place)
        say(show.sweep(swept))
    with story.stage("train", f"{spec.scaling.said_workers} workers, DeepSpeed, LoRA"):
        published = pipeline.train_and_publish(best, data, place)
    with story.stage("gate", "is it good enough to serve?"):
        say(show_.published(published, promotion.settle(spec, place, published.version)))


@contextmanager
def _watching(spec: Spec, place: Place, jobs: str, story: Story, traffic: Traffic) -> Iterator[None]:
    """The watch beside the traffic, as `rehone serve --watch` runs it."""
    ended = threading.Event()

    def decided(decision: Decision) -> None:
        story.decisions.append((traffic.phase, decision))
        say(f"   {show_.decision(decision)}")
        if decision.alarm:
            story.mark("alarm", traffic)
        if decision.action == "retrain":
            story.mark("retrain", traffic)

    with ThreadPoolExecutor(1, "watch") as pool:
        launcher = StandingCluster(spec, place, Jobs(jobs))
        story.watch = pool.submit(controller.watch, spec, place, launcher, decided, ended)
        try:
            yield
        finally:
            ended.set()
    story.watch.result()


def _calm(rows: list[Row], story: Story, traffic: Traffic, spec: Spec) -> None:
    with story.stage("phase 1", f"{len(rows)} tweets nobody has trained on; nothing should ring"):
        traffic.send("tweets", rows)
        story.wait_for(
            lambda: len(story.decisions) == len(rows) // spec.monitoring.window, 60, "the windows were not judged"
        )
        say(f"   accuracy {traffic.accuracy('tweets'):.3f}, {len(story.decisions)} decision(s)")


def _shift(movies: list[Row], sizes: Sizes, story: Story, traffic: Traffic, place: Place, spec: Spec) -> None:
    """Movie sentences, their labels after a delay, until the retraining has been promoted or refused."""
    stream = iter(movies[: -sizes.after])
    with story.stage("phase 2", "movie reviews arrive; labels follow for a part of them"):
        story.mark("shift", traffic)
        while "retrain" not in story.marks:
            if traffic.count("movies") >= sizes.shift_most:
                break
            traffic.send("movies", [row for row, _ in zip(stream, range(50), strict=False)])
            traffic.give_labels("movies", sizes.labelled_share, sizes.label_delay)
        story.wait_for(lambda: "retrain" in story.marks, 90, "no retraining was decided")
        say(f"   accuracy {traffic.accuracy('movies'):.3f}; a job retrains, traffic goes on")
        before = place.registry.champion(spec.name).version
        while not controller.retrained(spec, place):
            for _ in range(4):
                traffic.send("movies while retraining", [next(stream)])
                time.sleep(0.7)  # the trickle of a quiet hour: two cores also train
        story.at["retrained"] = time.monotonic()
        champion = place.registry.champion(spec.name).version
        if champion == before:
            raise RehoneError(f"the retraining was not promoted: {place.registry.versions(spec.name)[-1].tags}")
        story.wait_for(
            lambda: traffic.send("movies while retraining", [next(stream)])[0].version == champion,
            60,
            "serving did not swap",
        )
        story.mark("promotion", traffic)
        say(f"   version {champion} serves")


def _after(movies: list[Row], tweets: list[Row], story: Story, traffic: Traffic) -> None:
    with story.stage("phase 3", "more movie reviews and tweets that no version has seen"):
        traffic.send("movies after", movies)
        traffic.send("tweets after", tweets)


def _summary(spec: Spec, place: Place, story: Story, traffic: Traffic) -> dict[str, Any]:
    names = {
        "tweets_before": "tweets",
        "movies_before": "movies",
        "movies_after": "movies after",
        "tweets_after": "tweets after",
    }
    accuracy = {key: round(traffic.accuracy(phase), 4) for key, phase in names.items()}
    lost = accuracy["tweets_before"] - accuracy["movies_before"]
    return {
        "accuracy": accuracy,
        "recovered": round((accuracy["movies_after"] - accuracy["movies_before"]) / lost, 3) if lost > 0 else 0.0,
        "phases": [
            {
                "name": name,
                "requests": traffic.count(name),
                "failed": traffic.failed(name),
                "accuracy": round(traffic.accuracy(name), 4) if traffic.count(name) else None,
                "alarms": sum(d.alarm for phase, d in story.decisions if phase == name),
                "retrains": sum(d.action == "retrain" for phase, d in story.decisions if phase == name),
            }
            for name in traffic.phases
        ],
        "alarm_after_requests": story.marks["alarm"] - story.marks["shift"],
        "retrain_seconds": round(story.at["promotion"] - story.at["retrain"], 1),
        "swap_failed_requests": traffic.failed("movies while retraining"),
        "acknowledged": len(traffic.acknowledged),
        "logged": len(set(prediction_log(place.storage).read(columns=["prediction_id"])["prediction_id"].to_pylist())),
        "versions": [
            {"version": v.version, "alias": ", ".join(v.aliases), "dataset": v.tags["dataset"], "run": v.run}
            for v in place.registry.versions(spec.name)
        ],
        "decisions": [
            {"at": d.at.isoformat(), "decision": d.action, "reason": "; ".join(d.reasons)} for _, d in story.decisions
        ],
        "marks": story.marks,
        "stages": story.stages,
        "wall_seconds": round(time.monotonic() - story.began, 1),
    }


def _keep(summary: dict[str, Any], traffic: Traffic, story: Story, root: Path) -> None:
    from pydantic_core import to_json

    (root / "summary.json").write_bytes(to_json(summary, indent=2))
    demo_picture.draw(traffic, story.marks, root / "accuracy.png")
    shutil.copy(root / "summary.json", "demo-summary.json")
    shutil.copy(root / "accuracy.png", "demo-accuracy.png")


def _check(summary: dict[str, Any]) -> None:
    """Raises RehoneError when the loop did not do what it is there for."""
    faults = []
    if summary["phases"][0]["alarms"]:
        faults.append("an alarm rose on tweets")
    if sum(phase["failed"] for phase in summary["phases"]):
        faults.append("requests failed")
    if summary["acknowledged"] != summary["logged"]:
        faults.append(f"{summary['acknowledged']} answers were acknowledged, {summary['logged']} logged")
    if not any(CHAMPION in v["alias"] and v["version"] > 1 for v in summary["versions"]):
        faults.append("no retrained version became champion")
    if faults:
        raise RehoneError("; ".join(faults), where="demo-summary.json")


def table(summary: dict[str, Any]) -> str:
    """The summary for people."""
    phases = (
        [
            p["name"],
            p["requests"],
            p["failed"],
            "" if p["accuracy"] is None else f"{p['accuracy']:.3f}",
            p["alarms"],
            p["retrains"],
        ]
        for p in summary["phases"]
    )
    accuracy = summary["accuracy"]
    lost = accuracy["tweets_before"] - accuracy["movies_before"]
    moved = accuracy["tweets_after"] - accuracy["tweets_before"]
    lines = [
        show.table("the loop", ["phase", "requests", "failed", "accuracy", "alarms", "retrains"], phases),
        f"the shift cost {100 * lost:.1f} points, the retraining regained {summary['recovered']:.0%}",
        f"tweets moved by {100 * moved:+.1f} points",
        f"alarm after {summary['alarm_after_requests']} requests of the new kind",
        f"retrained, swapped in {summary['retrain_seconds']:.0f} s, failed: {summary['swap_failed_requests']} requests",
        f"{summary['acknowledged']} answers acknowledged, {summary['logged']} in the prediction log",
        f"{summary['wall_seconds']:.0f} s; demo-summary.json and demo-accuracy.png tell the rest",
    ]
    return "\n".join(lines)
