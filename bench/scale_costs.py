"""Unit costs of the parts that all nodes share, each measured with the real code: what `scale.py` reckons with."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cluster.settings import Settings
from cluster.store.lease import Lease
from cluster.store.registry import CHAMPION, Registry
from cluster.store.storage import Storage
from cluster.store.tracking import Tracker
from jobs.spec import Spec
from monitoring.journal import DECISION, DONE, Journal
from monitoring.windows import next_window
from serve.log.predictions import Prediction, new_id, prediction_log, tables
from serve.log.spool import Flusher, Spool
from serve.node import Aliases
from serve.versions.follower import AliasFollower

MODEL, HIDDEN = "scale", 384
REPLICAS = 8
"""Of a node."""
SECONDS = 5.0
Costs = dict[str, float]


def answers(count: int, start: datetime) -> list[Prediction]:
    """Of one version, a millisecond apart, with a text and an embedding of MiniLM's size."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, HIDDEN)).astype(np.float32)
    words = np.array(["good", "bad", "film", "day", "plot", "night", "actor", "scene"])
    return [
        Prediction(
            prediction_id=new_id(MODEL, 1),
            at=start + timedelta(milliseconds=n),
            model=MODEL,
            version=1,
            input=" ".join(rng.choice(words, 12)),
            label="good" if rng.random() < 0.5 else "bad",  # noqa: PLR2004
            confidence=float(rng.beta(8, 2)),
            scores={"good": 0.7, "bad": 0.3},
            embedding=points[n],
        )
        for n in range(count)
    ]


def each(times: int, act: Callable[[], object]) -> float:
    """Seconds of the fastest of some: what it costs where nobody else is busy."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        took.append(time.perf_counter() - start)
    return min(took)


def _write(root: str, writer: int, seconds: float, begin: Any, found: Any) -> None:
    """A flusher's part: commits of 20 rows under a transaction id, as fast as they go."""
    log, rows = prediction_log(Storage(root)), [a.to_row() for a in answers(20, datetime.now(UTC))]
    begin.wait()
    until, number, failed, longest = time.monotonic() + seconds, 0, 0, 0.0
    while time.monotonic() < until:
        number += 1
        start = time.monotonic()
        try:
            log.append(rows, (f"writer-{writer}", number))
        except Exception as error:  # noqa: BLE001 - counted
            failed += 1
            print(f"writer {writer}: {error}", file=sys.stderr)
        longest = max(longest, time.monotonic() - start)
    found.put((number - failed, failed, longest))


def writers(count: int, root: str) -> tuple[float, int, float]:
    """Commits a second of so many processes on one table, appends that failed, seconds of the longest."""
    context = multiprocessing.get_context("spawn")
    begin, found = context.Barrier(count + 1), context.Queue()
    started = [context.Process(target=_write, args=(root, n, SECONDS, begin, found)) for n in range(count)]
    for process in started:
        process.start()
    begin.wait()
    start = time.monotonic()
    made = [found.get() for _ in started]
    took = time.monotonic() - start
    for process in started:
        process.join()
    return sum(m[0] for m in made) / took, sum(m[1] for m in made), max(m[2] for m in made)


def of_tables(folder: Path) -> Costs:
    costs: Costs = {}
    for count in (1, 4, 16):
        rate, failed, longest = writers(count, str(folder / f"writers-{count}"))
        costs |= {f"commits/s, {count} writers": rate, f"failed appends, {count} writers": failed}
        costs[f"longest append, {count} writers, s"] = longest
    for files in (100, 1000):
        storage = Storage(str(folder / f"files-{files}"))
        log, began = prediction_log(storage), datetime.now(UTC) - timedelta(hours=1)
        for n in range(files):
            log.append([a.to_row() for a in answers(20, began + timedelta(seconds=n))])
        costs[f"next window, {files} files, s"] = each(3, lambda s=storage: next_window(s, MODEL, 1, 250))
        costs[f"tidy, {files} files, s"] = each(1, log.tidy)
        costs[f"next window, {files} files tidied, s"] = each(3, lambda s=storage: next_window(s, MODEL, 1, 250))
    return costs


def of_spools(folder: Path) -> Costs:
    """One replica's spool, and a node of REPLICAS whose flushers share a folder."""
    storage, made = Storage(str(folder / "spooled")), answers(10_000, datetime.now(UTC))
    spool = Spool(folder / "spool")
    left = iter(made)
    costs = {"a record into the spool, s": each(len(made), lambda: spool.append([next(left)]))}
    start = time.perf_counter()
    spool.flush(tables(storage))
    costs["rows/s from a spool to the log"] = len(made) / (time.perf_counter() - start)
    size = sum(f.stat().st_size for f in Path(storage.url("tables", "predictions")).rglob("*.parquet"))
    costs["bytes of an answer in the log"] = size / len(made)
    costs["files/min of a node, flush_seconds 2"] = _node(folder / "node")
    costs["polls/s of a node, poll_seconds 1"] = _polls(folder)
    return costs


def _node(folder: Path) -> float:
    storage, at = Storage(str(folder)), folder / "spools"
    spools = [Spool(at) for _ in range(REPLICAS)]
    flushers = [Flusher(spool, at, tables(storage), 2.0) for spool in spools]
    one, start = answers(1, datetime.now(UTC)), time.monotonic()
    while time.monotonic() < start + 4 * SECONDS:
        for spool in spools:
            spool.append(one)
        time.sleep(0.05)
    files = sum(1 for _ in Path(storage.url("tables", "predictions")).rglob("*.parquet"))
    took = time.monotonic() - start
    for flusher in flushers:
        flusher.stop()
    return 60 * files / took


def _polls(folder: Path) -> float:
    """Questions that reach the registry, of all replicas of one node that look every second."""
    asked: list[int] = []

    class Counted(Registry):
        def find(self, _model: str, _alias: str) -> None:
            asked.append(1)

    aliases = [Aliases(Counted(Settings(storage=str(folder))), folder / "aliases", 1.0) for _ in range(REPLICAS)]
    followers = [AliasFollower(one, MODEL, 1.0, lambda *_: None) for one in aliases]  # type: ignore[arg-type, return-value]
    start = time.monotonic()
    for follower in followers:
        follower.start()
    time.sleep(2 * SECONDS)
    took = time.monotonic() - start
    for follower in followers:
        follower.stop()
    return len(asked) / took


def of_mlflow(settings: Settings, name: str) -> Costs:
    """A training's writes, and what a replica asks every `poll_seconds`, with 1 and with 50 versions of the model."""
    tracker, registry = Tracker(settings, MODEL), Registry(settings)
    params = {f"p{n}": str(n) for n in range(30)}
    with tracker.run("warm", params, {}):
        pass

    def training() -> None:
        with tracker.run("train", params, {"kind": "train"}) as run:
            for step in range(20):
                run.log_metrics({"train_loss": 1.0, "eval_loss": 1.0, "accuracy": 0.5, "rate": 1e-4}, step)
            registry.register(MODEL, run.id, run.artifact_uri, {"dataset": "d", "spec": "s"})

    costs = {f"a training of 20 reports, {name}, s": each(3, training)}
    registry.promote(MODEL, 1)
    costs[f"poll, 3 versions, {name}, s"] = each(50, lambda: registry.find(MODEL, CHAMPION))
    with tracker.run("many", {}, {}) as run:
        for _ in range(50):
            registry.register(MODEL, run.id, run.artifact_uri, {"dataset": "d", "spec": "s"})
    costs[f"poll, 53 versions, {name}, s"] = each(50, lambda: registry.find(MODEL, CHAMPION))
    return costs


def of_postgresql(url: str, folder: Path) -> Costs:
    """As `of_mlflow`, with the polls that many processes get through in all and the connections that each holds."""
    settings = Settings(storage=str(folder / "pg"), tracking_uri=url)
    costs = of_mlflow(settings, "PostgreSQL")
    context = multiprocessing.get_context("spawn")
    before = _connections(url)
    for count in (1, 8):
        begin, found = context.Barrier(count + 1), context.Queue()
        asking = [context.Process(target=_ask, args=(settings, begin, found)) for _ in range(count)]
        for process in asking:
            process.start()
        begin.wait()
        costs[f"polls/s of {count} processes, PostgreSQL"] = sum(found.get() for _ in asking) / SECONDS
        if count > 1:
            costs["connections that 8 processes hold, PostgreSQL"] = _connections(url) - before
        begin.wait()
        for process in asking:
            process.join()
    return costs


def _ask(settings: Settings, begin: Any, found: Any) -> None:
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"  # as a replica does
    registry, asked = Registry(settings), 0
    registry.find(MODEL, CHAMPION)
    begin.wait()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        registry.find(MODEL, CHAMPION)
        asked += 1
    found.put(asked)
    begin.wait()


def _connections(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
        ).fetchone()
        return int(found[0]) - 1 if found else 0


def of_the_loop(folder: Path) -> Costs:
    storage = Storage(str(folder / "loop"))
    lease = Lease(storage, "watch", "me", 60)
    lease.acquire()
    costs = {"lease asked, s": each(50, lease.acquire)}
    journal, known = Journal(storage), 0
    body = {"reasons": ["nothing has changed"] * 3, "columns": [{"name": "embedding", "p": 0.5}] * 6}
    for size in (100, 1000):
        for n in range(known, size):
            journal.write(MODEL, DECISION, DONE, f"1-{n}", body)
        known = size
        costs[f"journal of {size} rows read, s"] = each(3, lambda: journal.entries(MODEL))
    journal._table.tidy()  # noqa: SLF001 - as `rehone tidy` does
    costs["journal of 1000 rows read, tidied, s"] = each(3, lambda: journal.entries(MODEL))
    for rows in (250, 2500, 25_000):
        costs[f"window of {rows} judged, s"] = _judged(storage, rows)
    return costs


def _judged(storage: Storage, rows: int) -> float:
    from monitoring.drift import detect

    log = prediction_log(storage)
    log.append([a.to_row() for a in answers(2 * rows, datetime.now(UTC))])
    spec = Spec.model_validate(
        {"name": MODEL, "base_model": "none", "data": {"source": "none.csv"}, "monitoring": {"window": rows}}
    )
    reference = pd.DataFrame([vars(a) for a in answers(1000, datetime.now(UTC))])
    reference = reference.assign(true=reference["label"])[["input", "true", "label", "confidence", "embedding"]]

    def judge() -> None:
        window = next_window(storage, MODEL, 1, rows)
        assert window is not None
        detect.detect(window, reference, ["good", "bad", "film", "day"], spec, storage)

    judge()
    return each(3, judge)


def of_serve() -> Costs:
    """CPU seconds a second of Serve's controller and of Ray's GCS with so many replicas that do nothing."""
    from ray import serve

    from cluster.session import connect

    idle: Any = serve.deployment(ray_actor_options={"num_cpus": 0})(type("Idle", (), {}))
    costs: Costs = {}
    with tempfile.TemporaryDirectory() as folder, connect(Settings(storage=folder)):
        for count in (2, 8, 16):
            serve.run(idle.options(num_replicas=count).bind(), route_prefix=None)
            time.sleep(SECONDS)
            parts = {"controller": _process("ServeController"), "GCS": _process("gcs_server")}
            before = {name: sum(process.cpu_times()[:2]) for name, process in parts.items()}
            time.sleep(2 * SECONDS)
            for name, process in parts.items():
                busy = (sum(process.cpu_times()[:2]) - before[name]) / (2 * SECONDS)
                costs[f"busy share of Serve's {name}, {count} replicas"] = busy
        serve.shutdown()
    return costs


def _process(word: str) -> Any:
    """The one of our children that has a word in its command line."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return next(child for child in children if word in " ".join(child.cmdline()))
