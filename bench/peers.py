"""The same model, rows and epochs trained by rehone, by Ludwig and by LLaMA-Factory, each in its own environment.

    python -m examples.sentiment_data && python -m examples.addresses_data
    python bench/peers.py --ludwig ENVIRONMENT --llama-factory ENVIRONMENT

ENVIRONMENT is a folder of `python -m venv` with `ludwig` and `peft`, or with `llamafactory`, `jieba`, `nltk` and
`rouge-chinese`. Both want torchvision and torchaudio, which are CUDA's on PyPI, so give them `torch==2.11.0
torchvision==0.26.0 torchaudio==2.11.0` of PyPI, which compute on a CPU as well. All get one thread and no GPU, and take
turns.

With Ludwig: MiniLM with LoRA of rank 8 tells the sentiment of tweets. With LLaMA-Factory, which knows language models
alone: a small Llama from nothing writes what the parts of an address are, whole weights. Seconds are from the start of
a process to its end, with start-up, and of the training alone where the peer says; accuracy is on the same test rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import yaml
from spread import spread

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from jobs import pipeline, specfile, tasks
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TEST, TRAIN, VALIDATION
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.show import table
from jobs.spec import Spec
from jobs.training import train
from tests.jobs.tasks import projects

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
SPLITS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True)
class Ran:
    """Seconds of the whole process and of its training, and the share of test rows that were answered right."""

    whole: float
    training: float
    accuracy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ludwig", type=Path, metavar="ENVIRONMENT")
    parser.add_argument("--llama-factory", type=Path, metavar="ENVIRONMENT")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="3 beside Ludwig, 6 beside LLaMA-Factory when not given")
    parser.add_argument("--ours", choices=["ludwig", "llama_factory"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    prepare_environment()
    if chosen.ours:
        print(json.dumps(asdict(ours(spec(chosen.ours, chosen.folder, chosen), place(chosen.folder)))))
        return
    for name, peer in (("ludwig", ludwig), ("llama_factory", llama_factory)):
        environment = getattr(chosen, name)
        if environment is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            made = spec(name, Path(folder), chosen)
            data = pipeline.prepare(made, place(Path(folder)))
            ran: dict[str, list[Ran]] = {"rehone": [], name: []}
            for turn in range(chosen.repeats):
                ran["rehone"].append(measured(name, folder))
                ran[name].append(peer(environment.resolve(), made, data, Path(folder) / f"{name}-{turn}"))
                print(turn, *(f"{who}: {made_[-1]}" for who, made_ in ran.items()), file=sys.stderr, flush=True)
        print(report(ran, made))


def place(folder: Path) -> Place:
    return Place.from_settings(Settings(storage=str(folder / "store")))


def spec(peer: str, folder: Path, chosen: argparse.Namespace) -> Spec:
    """What both train. The example with one worker, or a project of the tests from nothing."""
    alone = {"scaling.workers": 1, "scaling.cpus_per_worker": 1, "training.zero_stage": 0}
    alone |= {"training.evaluations_per_epoch": 1, "training.patience": 1000}
    if peer == "ludwig":
        made = specfile.load(EXAMPLES / "sentiment.yaml").with_values({"training.epochs": chosen.epochs or 3})
    else:
        kept = folder / "spec.yaml"
        if not kept.exists():
            made = projects.spec("text-generation", folder / "project", 1500, training__learning_rate=1e-3)
            grow(Path(made.base_model))
            kept.write_text(specfile.dump(made))
        made = specfile.load(kept).with_values({"training.epochs": chosen.epochs or 6})
    return made.with_values(alone)


def grow(base: Path) -> None:
    """The tests' Llama takes 5 ms a step, of which most is no mathematics: a larger one, from nothing as well."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(base)
    config.update({"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 1024, "num_attention_heads": 4})
    config.update({"head_dim": 64, "num_key_value_heads": 4})
    LlamaForCausalLM(config).save_pretrained(str(base))


def measured(peer: str, folder: str) -> Ran:
    command = [sys.executable, *sys.argv, "--ours", peer, "--folder", folder]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ALONE)
    made = json.loads(done.stdout.splitlines()[-1])
    return Ran(**made | {"whole": time.monotonic() - began})


def ours(made: Spec, where: Place) -> Ran:
    """Ray, Ray Train, DeepSpeed, and the test rows answered by what was trained."""
    with connect(where.settings, num_cpus=2):
        data = pipeline.prepare(made, where)
        job = train.work(made, data, where.storage)
        with pipeline.open_run(made, data, where, "train") as run:
            trained = train.fit(job, where.storage, run)
    return Ran(0.0, trained.seconds, accuracy(made, data, where, trained.folder))


def accuracy(made: Spec, data: DatasetVersion, where: Place, folder: Path) -> float:
    task, rows = tasks.get(made.task), data.rows(where.storage, TEST)
    net = model.load(folder, task, made.base_model, data.labels, merge=True)
    predictor = Predictor(net, task, task.processor(model.locate(made.base_model)), data.labels, made.bounds)
    said = [output.label for output in predictor(list(rows["input"]))]
    return share(said, list(rows["label"]))


def share(said: Sequence[str], true: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(said, true, strict=True)) / len(true)


def ludwig(environment: Path, made: Spec, data: DatasetVersion, folder: Path) -> Ran:
    """Its own LoRA around the encoder, its own head; rows of each split are those of rehone."""
    folder.mkdir()
    storage = place(folder.parent).storage
    parts = [data.rows(storage, split)[["input", "label"]].assign(split=n) for n, split in enumerate(SPLITS)]
    pd.concat(parts).to_csv(folder / "rows.csv", index=False)
    encoder = {
        "type": "auto_transformer",
        "pretrained_model_name_or_path": model.locate(made.base_model),
        "use_pretrained": True,
        "trainable": True,
        "adapter": {"type": "lora", "r": made.method.rank, "alpha": int(made.method.alpha), "dropout": 0.0},
    }
    length = {"max_sequence_length": made.training.max_length}
    config = {
        "input_features": [{"name": "input", "type": "text", "encoder": encoder, "preprocessing": length}],
        "output_features": [{"name": "label", "type": "category"}],
        "preprocessing": {"split": {"type": "fixed"}},
        "trainer": {
            "epochs": made.training.epochs,
            "batch_size": made.training.global_batch_size,
            "learning_rate": made.training.learning_rate,
            "learning_rate_scheduler": {"warmup_fraction": made.training.warmup_ratio, "decay": "linear"},
            "optimizer": {"type": "adamw"},
            "early_stop": -1,
        },
        "backend": {"type": "local"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    files = ["--config", folder / "config.yaml", "--dataset", folder / "rows.csv", "--output_directory", folder / "out"]
    whole = ran([environment / "bin" / "ludwig", "train", *map(str, files), "--skip_save_processed_input"], folder)
    (found,) = (folder / "out").glob("*/training_statistics.json")
    measured_ = json.loads(found.read_text())
    # Of the epoch that its validation found best, as rehone's is.
    best = max(range(made.training.epochs), key=lambda n: measured_["validation"]["label"]["accuracy_micro"][n])
    return Ran(whole, float("nan"), measured_["test"]["label"]["accuracy_micro"][best])


def llama_factory(environment: Path, made: Spec, data: DatasetVersion, folder: Path) -> Ran:
    """Full fine-tuning by its supervised stage; then its own generation on the test rows, which is not timed."""
    folder.mkdir()
    storage = place(folder.parent).storage
    for split in (TRAIN, TEST):
        rows = data.rows(storage, split)
        listed = [
            {"instruction": given, "output": label} for given, label in zip(rows["input"], rows["label"], strict=True)
        ]
        (folder / f"{split}.json").write_text(json.dumps(listed))
    (folder / "dataset_info.json").write_text(
        json.dumps(
            {
                split: {"file_name": f"{split}.json", "columns": {"prompt": "instruction", "response": "output"}}
                for split in (TRAIN, TEST)
            }
        )
    )
    training = made.training
    common = {
        "stage": "sft",
        "template": "default",
        "dataset_dir": str(folder),
        "finetuning_type": "full",
        "cutoff_len": training.max_length + training.max_answer,
        "output_dir": str(folder / "out"),
        "report_to": "none",
        "use_cpu": True,
        "overwrite_cache": True,
        "preprocessing_num_workers": 1,
    }
    learned = {
        "model_name_or_path": made.base_model,
        "do_train": True,
        "dataset": TRAIN,
        "per_device_train_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": made.accumulation(1),
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.epochs,
        "lr_scheduler_type": "linear",
        "warmup_ratio": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "save_strategy": "no",
        "logging_steps": 1000,
    }
    answered = {
        "model_name_or_path": str(folder / "out"),
        "do_predict": True,
        "predict_with_generate": True,
        "eval_dataset": TEST,
        "per_device_eval_batch_size": 64,
        "max_new_tokens": training.max_answer,
        "do_sample": False,
        "output_dir": str(folder / "said"),
    }
    seconds = []
    for name, more in (("train", learned), ("predict", answered)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | more))
        seconds.append(ran([environment / "bin" / "llamafactory-cli", "train", folder / f"{name}.yaml"], folder))
    told = json.loads((folder / "out" / "train_results.json").read_text())
    lines = (folder / "said" / "generated_predictions.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]
    right = share([one["predict"].strip() for one in said], [one["label"].strip() for one in said])
    return Ran(seconds[0], float(told["train_runtime"]), right)


def ran(command: Sequence[str | Path], folder: Path) -> float:
    """Seconds. Its words are kept in the folder, and shown when it fails."""
    began = time.monotonic()
    with (folder / "log").open("a") as log:
        done = subprocess.run(command, stdout=log, stderr=log, check=False, env=os.environ | ALONE, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{(folder / 'log').read_text()[-3000:]}")
    return time.monotonic() - began


def report(found: Mapping[str, Sequence[Ran]], made: Spec) -> str:
    lines = [
        [
            who,
            spread([one.whole for one in runs], "{:.1f}"),
            "" if math.isnan(runs[0].training) else spread([one.training for one in runs], "{:.1f}"),
            spread([one.accuracy for one in runs], "{:.3f}"),
        ]
        for who, runs in found.items()
    ]
    first, second = found.values()
    ratio = spread([b.whole / a.whole for a, b in zip(first, second, strict=True)], "{:.2f}")
    head = ["", "start to end, s", "training, s", "accuracy on the test rows"]
    title = f"{made.task}, {made.base_model.rpartition('/')[2]}, {made.training.epochs} epochs"
    return f"{table(title, head, lines)}\nthe peer took {ratio} times as long from start to end"


if __name__ == "__main__":
    main()
