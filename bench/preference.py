"""Our loss of preferences beside TRL's DPOTrainer: the same model, adapter and tokens, pair by pair.

    pip install --no-deps trl        # 1.16 was compared
    python bench/preference.py

A tiny Llama whose adapter has random weights, so that it differs from its reference.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from jobs import show, tasks
from jobs.targets import preference
from jobs.tasks.preference_tuning import Preferred
from jobs.tasks.task import Bounds

PAIRS = [
    ("Where is the library?", "It is in Main Street, next to the school.", "No idea."),
    ("What is two and two?", "Four.", "Two and two is a question that many have asked."),
    ("Say hello.", "Hello!", "Goodbye, and thank you."),
    ("Name a colour.", "Blue.", "A colour."),
]
BETA = 0.3


def tokenizer() -> Any:
    """A token a word."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for pair in PAIRS for text in pair for word, _ in split.pre_tokenize_str(text)})
    made = Tokenizer(models.WordLevel({w: at for at, w in enumerate(["<pad>", "<unk>", "</s>", *words])}, "<unk>"))
    made.pre_tokenizer = split
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def network(vocabulary: int) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, pad_token_id=0, **sizes))


def main() -> None:
    words, task = tokenizer(), tasks.get("preference-tuning")
    inputs = [given for given, _, _ in PAIRS]
    targets = [preference.read({"chosen": better, "rejected": worse}) for _, better, worse in PAIRS]
    ours = task.encode(words, inputs, targets, [], Bounds(64, 64, BETA))
    assert isinstance(ours, Preferred)
    rows = datasets.Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(folder, beta=BETA, use_cpu=True, bf16=False, report_to=[])
        adapter = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = DPOTrainer(
            network(len(words)), args=arguments, train_dataset=rows, processing_class=words, peft_config=adapter
        )
    net = trainer.model.eval()
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    losses, right = task.losses(net, ours.batch(range(len(PAIRS))))
    table = []
    for at, given in enumerate(inputs):
        sides = {"prompt_ids": ours.better.ids[at]}
        for name, side in (("chosen_ids", ours.better), ("rejected_ids", ours.worse)):
            assert side.targets is not None
            sides[name] = side.targets[at]
        theirs = float(trainer.compute_loss(trainer.model, trainer.data_collator([sides])))
        mine = float(losses[at])
        table.append([given, f"{theirs:.6f}", f"{mine:.6f}", f"{mine - theirs:+.1e}", int(right[at])])
    print(show.table("DPO's loss", ["pair", "TRL", "ours", "difference", "right"], table))


if __name__ == "__main__":
    main()
