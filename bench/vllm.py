"""Texts by PyTorch and by vLLM on the same model, through the same engine: tokens and texts a second.

    REHONE_VLLM=.vllm/bin/vllm python -m bench.vllm

A Llama of 27 million weights that has learned nothing, fp32, 48 tokens a text. Clients are threads that ask for a text,
read it to its end and ask again; PyTorch writes a token of each in turn, vLLM one of all of them in a pass. `batch` is
what /predict sends: 16 inputs at once. Each engine computes on one thread; vLLM's own HTTP is a process more. A ratio
is of the same round, the engines in turn. It writes what PyTorch writes, or nothing is timed.
"""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cluster.registry import ModelVersion
from cluster.session import prepare_environment
from examples import addresses_data
from jobs import model, tasks
from jobs.predictor import Predictor
from jobs.show import table
from jobs.tasks.task import Bounds, Sampling
from serve import writer
from serve.engine import Engine
from tests.jobs.tasks import projects

SIZES = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1408}
BOUNDS, ROUNDS, BATCH = Bounds(48, 48), 5, 16
TEXTS = {1: 3, 4: 8, 16: 32}  # a round, by clients


def main() -> None:
    prepare_environment()
    torch.set_num_threads(1)
    with addresses_data.fetch().open(newline="", encoding="utf-8") as lines:
        inputs = [row["text"] for row in csv.DictReader(lines)][:BATCH]
    with tempfile.TemporaryDirectory() as folder:
        plain = untrained(Path(folder) / "base")
        began = time.monotonic()
        fast = writer.open_(plain, writer.whole(plain, Path(folder) / "whole"))
        started = time.monotonic() - began
    version = ModelVersion("bench", 1, "", "", {}, (), 0.0)
    engines = {"torch": Engine(version, plain), "vllm": Engine(version, fast)}
    wanted, made = ([output.label for output in engine.answer(inputs).outputs] for engine in engines.values())
    if wanted != made:
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
    print(table(f"{ROUNDS} rounds, one thread an engine; vLLM was up after {started:.0f} s", head, rows))
    print(json.dumps(kept))


def untrained(base: Path) -> Predictor:
    """Wide weights, so that no two tokens tie; it never ends a text by itself but by chance."""
    base.mkdir()
    projects.llama(base, initializer_range=0.1, **SIZES)
    task = tasks.get("text-generation")
    net = model.base(task, str(base), (), 0)
    with torch.no_grad():
        net.lm_head.weight[net.config.eos_token_id] = 0  # never the likeliest: all texts are as long
    return Predictor(net, task, task.processor(base), (), BOUNDS)


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
