"""A small project for each task: real rows, and an untrained model of a real architecture that can learn them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from examples import addresses_data, sentiment_data
from jobs import specfile
from jobs.inputs import audio
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
        "method": {"name": "lora" if task == "preference-tuning" else "full"},
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


def choices(file: Path, rows: int) -> None:
    """An address, its own outline and the commonest of the others: two answers of which the first is better."""
    outlines(file, rows)
    with file.open(newline="", encoding="utf-8") as lines:
        read = [(row["text"], row["label"]) for row in csv.DictReader(lines)]
    (most, _), (next_, _) = Counter(label for _, label in read).most_common(2)
    wrong = {most: next_}
    _write(file, [(given, json.dumps({"chosen": right, "rejected": wrong.get(right, most)})) for given, right in read])


def streets(file: Path, rows: int) -> None:
    """An address, and what it is known as elsewhere: its street and place, in another order and other words around."""
    made = []
    for row in _addresses(rows):
        found = {s.label: row["text"][s.start : s.end].strip(" ,.") for s in spans.spans(row["spans"])}
        known = [found[part] for part in ("PlaceName", "StreetName") if part in found]
        if known:
            made.append((row["text"], f"the street in {' '.join(known)}".lower()))
    _write(file, made)


def _tokenizer(folder: Path) -> int:
    """The commonest words of addresses and editorials, others by the letter; how many there are."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    said = ["number street direction other further then"] * 5
    read = [
        row["text"] for row in (*_addresses(1500), *sentiment_data.read(sentiment_data.fetch()["editorials"])[:500])
    ]
    words = Counter(re.findall(r"\w+|[^\w\s]", " ".join([*said, *read]).lower()))
    letters = sorted({letter for word in words for letter in word})
    common = sorted(words, key=lambda word: (-words[word], word))[:1500]
    pieces = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *common])
    made = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
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


def llama(folder: Path, **more: Any) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128} | more
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


def tones(file: Path, rows: int, longest: int = 4) -> None:
    """One to four tones, each of which is a letter: what is heard is what is to be written."""
    import soundfile

    rng = np.random.default_rng(0)
    pitches = {"a": 400, "b": 900, "c": 1800}
    moments = np.arange(int(0.08 * audio.RATE)) / audio.RATE
    made: dict[str, str] = {}
    while len(made) < rows:
        word = "".join(rng.choice(list(pitches), rng.integers(1, longest + 1)))
        parts = [np.sin(2 * np.pi * pitches[letter] * moments) * np.hanning(len(moments)) for letter in word]
        samples = np.concatenate(parts) * rng.uniform(0.4, 0.9) + rng.normal(0, 0.01, len(word) * len(moments))
        name = f"{len(made)}.flac"
        soundfile.write(file.parent / name, samples, audio.RATE)
        made[name] = word
    _write(file, list(made.items()))


def wav2vec2(folder: Path) -> None:
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "b": 6, "c": 7}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=96,
        conv_dim=(32, 32, 32),
        conv_kernel=(16, 8, 4),
        conv_stride=(8, 8, 4),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        mask_time_prob=0.0,
        layerdrop=0.0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
        feat_proj_dropout=0.0,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(str(folder))


def whisper(folder: Path) -> None:
    """One that hears half a second."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "c": 6}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    WhisperProcessor(WhisperFeatureExtractor(chunk_length=1), tokenizer).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        d_model=48,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_source_positions=50,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    WhisperForConditionalGeneration(config).save_pretrained(str(folder))


PROJECTS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], None], dict[str, Any]]] = {
    "multi-label-classification": (domains, bert, {"epochs": 8, "learning_rate": 2e-3, "max_length": 48}),
    "token-classification": (addresses, bert, {"epochs": 6, "learning_rate": 5e-3, "max_length": 48}),
    "speech-recognition": (tones, wav2vec2, {"epochs": 10, "learning_rate": 3e-3, "max_answer": 8}),
    "speech-to-text": (partial(tones, longest=2), whisper, {"epochs": 20, "learning_rate": 3e-3, "max_answer": 8}),
    "text-generation": (
        outlines,
        llama,
        {"epochs": 6, "learning_rate": 5e-3, "max_length": 48, "max_answer": 8},
    ),
    "sentence-similarity": (streets, bert, {"epochs": 4, "learning_rate": 2e-3, "max_length": 48}),
    "preference-tuning": (
        choices,
        llama,
        {"epochs": 6, "learning_rate": 5e-3, "max_length": 48, "max_answer": 8},
    ),
    "text2text-generation": (
        outlines,
        t5,
        {"epochs": 15, "learning_rate": 5e-3, "max_length": 48, "max_answer": 8},
    ),
}


def message(role: str, content: str) -> str:
    """A conversation of one message as an input."""
    return json.dumps([{"role": role, "content": content}])
