"""A tiny real BERT and data it can learn in seconds: sentences whose label is in their words."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

from jobs import specfile, tasks
from jobs.spec import Spec

TASK = tasks.get("text-classification")
GOOD = ["good", "great", "lovely", "fine", "warm", "bright"]
BAD = ["bad", "awful", "ugly", "poor", "cold", "dark"]
FILLER = ["day", "film", "room", "meal", "song", "road", "house", "night", "book", "game", "very", "so", "quite", "the"]


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` different sentences with `text, label, document`."""
    draw = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < count:
        label = draw.choice(["negative", "positive"])
        words = draw.choices(FILLER, k=draw.randint(2, 7)) + draw.choices(GOOD if label == "positive" else BAD, k=2)
        draw.shuffle(words)
        text = " ".join(words)
        made[" ".join(sorted(words))] = {"input": text, "label": label, "document": str(len(made) // 3)}
    return list(made.values())


def write_csv(path: Path, data: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(data[0]))
        writer.writeheader()
        writer.writerows(data)
    return path


def base_model(folder: Path) -> Path:
    """BERT with two layers of width 32 and the vocabulary above; the same weights every time."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(str(folder))
    return folder


def tree(data: Path, model: Path) -> dict[str, Any]:
    """A spec as plain values."""
    return {
        "name": "tiny",
        "base_model": str(model),
        "data": {"source": str(data), "input": "input", "labels": ["negative", "positive"], "near_duplicates": None},
        "training": {
            "epochs": 10,
            "learning_rate": 0.01,
            "patience": 10,
            "micro_batch_size": 8,
            "global_batch_size": 16,
            "max_length": 32,
        },
        "scaling": {"workers": 2},
        "sweep": {
            "search": {"training.learning_rate": {"loguniform": [5e-3, 1e-2]}, "method.rank": {"choice": [4, 8]}},
        },
        "evaluation": {"bootstrap": 50},
        "serving": {"port": 0, "flush_seconds": 0.2, "poll_seconds": 0.2},
    }


def spec(folder: Path, model: Path, **values: Any) -> Spec:
    """The spec over 160 rows written to `folder`; `values` are dotted keys with `__` for the dot."""
    data = write_csv(folder / "data.csv", rows(160))
    made = specfile.parse(tree(data, model))
    return made.with_values({key.replace("__", "."): value for key, value in values.items()})


def still(spec: Spec, folder: Path) -> Spec:
    """The spec on a copy of its base model without dropout, which other numbers of workers draw differently."""
    shutil.copytree(spec.base_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return spec.with_values({"base_model": str(folder), "method.dropout": 0})
