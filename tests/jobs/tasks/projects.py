"""A small project for each task: real rows, and an untrained model of a real architecture that can learn them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples import addresses_data, sentiment_data
from jobs import specfile
from jobs.spec import Spec
from jobs.targets import labels, spans

_SPECIAL = {name: at for at, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}


def spec(task: str, folder: Path, rows: int = 400, **values: Any) -> Spec:
    """A project of this task in `folder`; `values` are dotted keys with `__` for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base"
    base.mkdir()
    write, make, training = PROJECTS[task]
    make(base)
    write(folder / "data.csv", rows)
    tree = {
        "name": "small",
        "task": task,
        "base_model": str(base),
        "data": {"source": str(folder / "data.csv"), "near_duplicates": None},
        "method": {"name": "full"},
        "training": {"micro_batch_size": 16, "global_batch_size": 16, "evaluations_per_epoch": 1} | training,
        "scaling": {"workers": 1},
        "evaluation": {"bootstrap": 50, "robustness_rows": 10},
        "monitoring": {"window": 20},
    }
    return specfile.parse(tree).with_values({key.replace("__", "."): value for key, value in values.items()})


def _write(file: Path, rows: list[tuple[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["text", "label"])
        writer.writerows(rows)


def domains(file: Path, rows: int) -> None:
    """Where a text is from, and whether it is kind: two labels or one."""
    paths = sentiment_data.fetch()
    made = []
    for domain in ("tweets", "editorials"):
        for row in sentiment_data.read(paths[domain])[: rows // 2]:
            kind = [row["label"]] if row["label"] == "positive" else []
            made.append((row["text"], labels.joined([domain, *kind])))
    _write(file, made)


def _addresses(rows: int) -> list[dict[str, str]]:
    with addresses_data.fetch().open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))[:rows]


def addresses(file: Path, rows: int) -> None:
    """An address and its parts."""
    _write(file, [(row["text"], row["spans"]) for row in _addresses(rows)])


def outlines(file: Path, rows: int) -> None:
    """An address, and the first two of its parts in words: what a model has to write."""
    said = {
        "AddressNumber": "number",
        "StreetName": "street",
        "StreetNamePreDirectional": "direction",
        "Other": "other",
    }
    made = []
    for row in _addresses(rows):
        first = [said.get(span.label, "further") for span in spans.spans(row["spans"])[:3]]
        made.append((row["text"], " then ".join(first)))
    _write(file, made)


def _tokenizer(folder: Path) -> int:
    """Pieces of the words of addresses and editorials; how many there are."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    words = [
        row["text"] for row in (*_addresses(1500), *sentiment_data.read(sentiment_data.fetch()["editorials"])[:500])
    ]
    said = ["number street direction other further then tweets"] * 5
    made.train_from_iterator([*words, *said], trainers.WordPieceTrainer(vocab_size=2000, special_tokens=list(_SPECIAL)))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", _SPECIAL["[CLS]"]), ("[SEP]", _SPECIAL["[SEP]"])]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="[SEP]", bos_token="[CLS]", **names).save_pretrained(
        folder
    )
    return made.get_vocab_size()


def bert(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=_tokenizer(folder), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(str(folder))


def llama(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=_tokenizer(folder), max_position_embeddings=128, **sizes, **ends)
    LlamaForCausalLM(config).save_pretrained(str(folder))


def t5(folder: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    ends = {"eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=_tokenizer(folder), **sizes, **ends)).save_pretrained(str(folder))


PROJECTS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], None], dict[str, Any]]] = {
    "multi-label-classification": (domains, bert, {"epochs": 6, "learning_rate": 3e-3, "max_length": 48}),
    "token-classification": (addresses, bert, {"epochs": 6, "learning_rate": 5e-3, "max_length": 48}),
    "text-generation": (
        outlines,
        llama,
        {"epochs": 6, "learning_rate": 5e-3, "max_length": 48, "max_answer": 8},
    ),
    "text2text-generation": (
        outlines,
        t5,
        {"epochs": 6, "learning_rate": 5e-3, "max_length": 48, "max_answer": 8},
    ),
}


def message(role: str, content: str) -> str:
    """A conversation of one message as an input."""
    return json.dumps([{"role": role, "content": content}])
