"""Texts by PyTorch and by vLLM on the same model, through the same engine: tokens and texts a second.

    REHONE_VLLM=.vllm/bin/vllm python -m bench.vllm [--dtype bfloat16]

A Llama of 27 million weights that has learned nothing, fp32, 48 tokens a text. Clients are threads that ask for a text,
read it to its end and ask again; on a GPU both engines are there. PyTorch writes a token of each in turn, vLLM one of
all of them in a pass. `batch` is what one request to /predict may send: 16 inputs at once. Each engine computes on one
thread; vLLM's own HTTP is a process more. A ratio is of the same round, the engines in turn. In fp32 it writes what
PyTorch writes, or nothing is timed; with `--dtype bfloat16` it is said how many texts are the same.

Then clients of /predict, one input each: gathered into batches that wait for their longest text, as the server has them
go to vLLM, or each as it comes. These texts end by themselves, after a few tokens or up to 80.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from cluster.session import prepare_environment
from cluster.store.registry import ModelVersion
from examples import addresses_data
from jobs import tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.spec import VllmSpec
from jobs.tasks.task import Bounds, Sampling
from serve.engines import writer
from serve.engines.batching import Batcher
from serve.engines.engine import Engine
from tests.jobs.tasks import projects

SIZES = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1408}
BOUNDS, ROUNDS, BATCH = Bounds(48, 48), 5, 16
TEXTS = {1: 3, 4: 8, 16: 32}  # a round, by clients
ASKED, LONG, ENDS = 2, Bounds(48, 80), 1.6  # texts of a client in a round; their bounds, and what ends them by chance

WAYS = ("in batches", "as they come")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    how = VllmSpec(dtype=parser.parse_args().dtype)  # type: ignore[call-arg]
    prepare_environment()
    torch.set_num_threads(1)
    with addresses_data.fetch().open(newline="", encoding="utf-8") as lines:
        inputs = [row["text"] for row in csv.DictReader(lines)][:BATCH]
    with tempfile.TemporaryDirectory() as folder:
        plain = untrained(Path(folder) / "base")
        began = time.monotonic()
        fast = started(plain, Path(folder) / "whole", how)
        took = time.monotonic() - began
    version = ModelVersion("bench", 1, "", "", {}, (), 0.0)
    engines = {"torch": Engine(version, plain), "vllm": Engine(version, fast)}
    wanted, made = ([output.label for output in engine.answer(inputs).outputs] for engine in engines.values())
    same = sum(one == other for one, other in zip(wanted, made, strict=True))
    if same < BATCH and how.dtype == "float32":
        raise SystemExit("vLLM writes other texts than PyTorch")
    rows, kept = [], {}
    for clients in (*TEXTS, None):
        times = timed(engines, inputs, clients)
        ratios = [slow / quick for slow, quick in zip(times["torch"], times["vllm"], strict=True)]
        texts = TEXTS[clients] if clients else BATCH
        name = f"{clients} at once" if clients else f"a batch of {BATCH}"
        speeds = {engine: [texts / seconds for seconds in found] for engine, found in times.items()}
        tokens = (statistics.median(found) * BOUNDS.answer for found in speeds.values())
        rows.append([name, *map(shown, speeds.values()), *(f"{speed:.0f}" for speed in tokens), shown(ratios)])
        kept[name] = {engine: statistics.median(found) for engine, found in speeds.items()}
    head = ["", "texts/s torch", "texts/s vllm", "tokens/s torch", "tokens/s vllm", "ratio"]
    where = f"on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "one thread an engine"
    title = f"{ROUNDS} rounds, {where}; vLLM in {how.dtype} was up after {took:.0f} s, {same} of {BATCH} texts the same"
    print(table(title, head, rows))
    del engines, fast  # its memory
    print(json.dumps(kept | predicted(inputs, how)))


def started(plain: Predictor, folder: Path, how: VllmSpec) -> writer.Writer:
    """Whatever it writes."""
    return writer.Writer(plain, writer.started(plain, writer.whole(plain, folder), how), how.engine)


def predicted(inputs: Sequence[str], how: VllmSpec) -> dict[str, dict[str, float]]:
    """Texts a second of clients of /predict, and how long each text took, batched here or by vLLM."""
    with tempfile.TemporaryDirectory() as folder:
        plain = untrained(Path(folder) / "base", LONG, ENDS)
        fast = started(plain, Path(folder) / "whole", how)
    version = ModelVersion("bench", 1, "", "", {}, (), 0.0)
    engine = Engine(version, fast)
    lengths = [len(plain.tokenizer(one.label)["input_ids"]) for one in fast(inputs)]
    rows, kept = [], {}
    for clients in TEXTS:
        speeds, waits = ({way: list[float]() for way in WAYS} for _ in range(2))
        for _ in range(ROUNDS):
            for way in WAYS:
                seconds, took = asyncio.run(asked(engine, inputs, clients, way))
                speeds[way].append(clients * ASKED / seconds)
                waits[way].append(statistics.mean(took))
        found = [shown(part[way]) for part in (speeds, waits) for way in WAYS]
        ratios = [shown([new / old for old, new in zip(*part.values(), strict=True)]) for part in (speeds, waits)]
        rows.append([f"{clients} clients", *found[:2], ratios[0], *found[2:], ratios[1]])
        kept[f"predict, {clients}"] = {way: statistics.median(found) for way, found in speeds.items()}
    title = (
        f"/predict by vLLM; texts of {min(lengths)} to {max(lengths)} tokens, {statistics.mean(lengths):.0f} on average"
    )
    head = ["", *(f"texts/s {way}" for way in WAYS), "ratio", *(f"s a text {way}" for way in WAYS), "ratio"]
    print(table(title, head, rows))
    return kept


async def asked(engine: Engine, inputs: Sequence[str], clients: int, way: str) -> tuple[float, list[float]]:
    """Seconds in which each client has had its texts, one after another, and those that each text took."""
    batcher, took = Batcher("bench", BATCH * 2), list[float]()
    answer = batcher.lane(lambda: engine) if way == WAYS[0] else partial(asyncio.to_thread, engine.answer)

    async def client(at: int) -> None:
        for turn in range(ASKED):
            came = time.perf_counter()
            await answer([inputs[(at + 5 * turn) % len(inputs)]])
            took.append(time.perf_counter() - came)

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    seconds = time.perf_counter() - began
    await asyncio.to_thread(batcher.stop)
    return seconds, took


def untrained(base: Path, bounds: Bounds = BOUNDS, ends: float = 0.0) -> Predictor:
    """Wide weights, so that no two tokens tie. `ends` is how wide those of the token are that ends a text: with 0 it is
    never the likeliest, and all texts are as long.
    """
    base.mkdir()
    projects.llama(base, initializer_range=0.1, **SIZES)
    task = tasks.get("text-generation")
    net = model.base(task, str(base), (), 0)
    with torch.no_grad():
        net.lm_head.weight[net.config.eos_token_id] *= ends
    net = net.cuda() if torch.cuda.is_available() else net
    return Predictor(net, task, task.processor(base), (), bounds)


def timed(engines: Mapping[str, Engine], inputs: Sequence[str], clients: int | None) -> dict[str, list[float]]:
    """Seconds of each round, the engines in turn; a batch without clients."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            began = time.perf_counter()
            if clients is None:
                engine.answer(inputs)
            else:
                written(engine, inputs, clients)
            times[name].append(time.perf_counter() - began)
    return times


def written(engine: Engine, inputs: Sequence[str], clients: int) -> None:
    asked = (inputs * 2)[: TEXTS[clients]]
    with ThreadPoolExecutor(clients) as threads:
        for pieces in threads.map(lambda given: list(engine.write(given, Sampling(BOUNDS.answer))), asked):
            assert pieces[-1].written == BOUNDS.answer


def shown(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


if __name__ == "__main__":
    main()
