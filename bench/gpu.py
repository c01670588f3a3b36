"""What precision, ZeRO's offloading, activation checkpointing and 4 bits change on a GPU: memory, time, losses.

    python bench/gpu.py [--layers 24 --width 1024] [--steps 12] [--rows 16] [--tokens 128] [--only NAME ...]

A BERT of that size with random weights learns which of two words its rows hold more of, by the training loop itself
with one worker. Each line is a process of its own. Planned is what `rehone plan` reckons for the device, measured the
most that PyTorch had allocated in a step. A loss beside fp32's says whether the mathematics are the same; numbers of 16
bits differ in their third digit, weights of 4 bits are another model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.session import prepare_environment
from cluster.store.storage import Storage
from jobs.plan import plan, shapes
from jobs.show import table
from jobs.spec import Spec
from jobs.sweep import group
from jobs.training import loop, tokens

MIB = 2**20
WORDS = ("good", "bad", "day", "film", "room", "meal", "song", "road")
FULL = {"method.name": "full"}
LINES: dict[str, dict[str, Any]] = {
    "full, fp32": FULL,
    "full, fp32, stage 1": FULL | {"training.zero_stage": 1},
    "full, fp32, stage 2": FULL | {"training.zero_stage": 2},
    "full, fp32, stage 3": FULL | {"training.zero_stage": 3},
    "full, fp32, checkpointing": FULL | {"training.activation_checkpointing": True},
    "full, fp32, optimizer offloaded": FULL | {"training.offload": "optimizer", "training.zero_stage": 2},
    "full, fp32, parameters offloaded": FULL | {"training.offload": "parameters", "training.zero_stage": 3},
    "full, bf16": FULL | {"training.precision": "bf16", "training.zero_stage": 1},
    "full, fp16": FULL | {"training.precision": "fp16", "training.zero_stage": 1},
    "full, bf16, stage 3": FULL | {"training.precision": "bf16", "training.zero_stage": 3},
    "LoRA, fp32": {},
    "LoRA, bf16": {"training.precision": "bf16", "training.zero_stage": 1},
    "DoRA, bf16": {"training.precision": "bf16", "training.zero_stage": 1, "method.name": "dora"},
    "QLoRA, fp32": {"method.name": "qlora"},
    "QLoRA, bf16": {"training.precision": "bf16", "training.zero_stage": 1, "method.name": "qlora"},
    "QLoRA, bf16, checkpointing": {
        "training.precision": "bf16",
        "training.zero_stage": 1,
        "method.name": "qlora",
        "training.activation_checkpointing": True,
    },
}


@dataclass(frozen=True)
class Ran:
    """`seconds` and `losses` of each step, `memory` and `planned` in bytes of the device."""

    seconds: list[float]
    losses: list[float]
    memory: int
    planned: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--tokens", type=int, default=128, help="of a row")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", choices=list(LINES), default=list(LINES), metavar="NAME")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    prepare_environment()
    if chosen.one:
        print(json.dumps(asdict(one(chosen))))
        return
    with tempfile.TemporaryDirectory() as folder:
        base_model(Path(folder), chosen)
        ran = {name: measured(name, folder) for name in chosen.only}
    print(report({name: made for name, made in ran.items() if made is not None}, chosen))


def measured(name: str, folder: str) -> Ran | None:
    """None, and a word on stderr, where it failed: the others are worth having."""
    command = [sys.executable, *sys.argv, "--one", name, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None
    made = Ran(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{name}: {made.memory / MIB:.0f} MiB", file=sys.stderr, flush=True)
    return made


def base_model(folder: Path, chosen: argparse.Namespace) -> None:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=chosen.width,
        num_hidden_layers=chosen.layers,
        num_attention_heads=chosen.width // 64,
        intermediate_size=4 * chosen.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(str(folder))


def spec(chosen: argparse.Namespace) -> Spec:
    import torch

    made = Spec.model_validate(
        {
            "name": "gpu",
            "base_model": str(chosen.folder),
            "data": {"source": "none.csv"},
            "method": {"dropout": 0},
            "training": {
                "zero_stage": 0,
                "learning_rate": 1e-4,
                "micro_batch_size": chosen.rows,
                "global_batch_size": chosen.rows,
                "max_length": chosen.tokens,
                "evaluations_per_epoch": 1,
            },
            "scaling": {"workers": 1, "use_gpu": torch.cuda.is_available()},
        }
    )
    return made.with_values(LINES[chosen.one])


def rows(count: int, tokens: int) -> Any:
    import random

    import pandas as pd

    draw = random.Random(0)  # noqa: S311 - data, not secrets
    made = []
    for number in range(count):
        label = ("negative", "positive")[number % 2]
        words = draw.choices(WORDS[2:], k=tokens - 12) + [WORDS[label == "negative"]] * 10
        draw.shuffle(words)
        made.append({"input": " ".join(words), "label": label})
    return pd.DataFrame(made)


def one(chosen: argparse.Namespace) -> Ran:
    """This process is one line."""
    import torch

    made, data = spec(chosen), rows(chosen.steps * chosen.rows, chosen.tokens)
    labels = ("negative", "positive")
    seconds: list[float] = []
    losses: list[float] = []
    step, before = loop._step, [0]  # noqa: SLF001 - the loop's own, as it is

    def clocked(*arguments: Any) -> float:
        if not seconds:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        loss = step(*arguments)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(loss)
        before[0] = torch.cuda.max_memory_allocated()  # before validation
        return loss

    loop._step = clocked  # type: ignore[assignment]  # noqa: SLF001
    parts = {"rows/train.parquet": data, "rows/validation.parquet": data.head(2 * chosen.rows)}
    kept = tokens.kept(Storage(str(chosen.folder)), parts, made, labels)
    job = loop.Work(made, labels, *kept, zero_stage=int(made.training.zero_stage), epochs=1)
    with group.alone():
        loop.run(job, rank=0, world=1, threads=os.cpu_count() or 1, report=lambda *_: None)
    net = shapes.on_meta(made, labels)
    needs = plan.needs(made, made.method.name, shapes.sizes(net), shapes.activations(net, made))
    planned = next(need.peak for need in needs if need.stage == made.training.zero_stage)
    return Ran(seconds, losses, before[0], planned)


def report(ran: dict[str, Ran], chosen: argparse.Namespace) -> str:
    import torch

    title = f"{torch.cuda.get_device_name()}: BERT of {chosen.layers} layers, {chosen.width} wide; "
    title += f"{chosen.rows} rows of {chosen.tokens} tokens a step, one worker"
    head = [
        "",
        "measured MiB",
        "planned",
        "measured/planned",
        "of full fp32",
        "ms a step",
        "first loss",
        "last",
        "off fp32",
    ]
    whole = ran["full, fp32"]
    lines = []
    for name, made in ran.items():
        same = ran.get("full, fp32" if name.startswith("full") else "LoRA, fp32", whole)
        off = max(abs(a - b) / abs(b) for a, b in zip(made.losses, same.losses, strict=True))
        lines.append(
            [
                name,
                f"{made.memory / MIB:.0f}",
                f"{made.planned / MIB:.0f}",
                f"{made.memory / made.planned:.2f}",
                f"{made.memory / whole.memory - 1:+.0%}",
                f"{1e3 * statistics.median(made.seconds[3:]):.1f}",
                f"{made.losses[0]:.4f}",
                f"{made.losses[-1]:.4f}",
                f"{off:.1e}",
            ]
        )
    return table(title, head, lines)


if __name__ == "__main__":
    main()
