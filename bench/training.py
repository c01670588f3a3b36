"""What Ray Train and DeepSpeed cost and what our batches save, beside what one would write by hand.

    python -m examples.sentiment_data && python bench/training.py [--device cuda] [--base-model FOLDER] [--json FILE]

Each contestant is a process of its own on the same rows and model with the same optimizer; they take turns, so that
what else the machine does falls on all of them. A step's time is what the loop waits for it: batch, forward, backward,
clip, update; the first few are left out. `torch` is a bare loop over our own batches, so its losses must be ours;
`Trainer` is transformers' own with its default padding, that of a batch in random order.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spread import spread

from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from jobs import specfile, tasks
from jobs.data.split import TRAIN, VALIDATION
from jobs.models import model
from jobs.pipeline import Place, prepare
from jobs.show import table
from jobs.spec import Spec
from jobs.training import batches, loop, tokens

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SKIP = 5
"""First steps, in which memory is laid out and kernels are picked."""
CLAIMS = {"trainable share": "0.1%", "optimizer bytes": "-90%", "gradient bytes": "-90%", "step time": "-70%"}


@dataclass(frozen=True)
class Ran:
    """`seconds` and `losses` of each step; `whole` from the start of the process to the end of training, in seconds."""

    seconds: list[float]
    losses: list[float]
    rows: int
    whole: float
    accuracy: float = math.nan
    trainable: float = math.nan
    optimizer: int = 0
    gradients: int = 0
    memory: int = 0
    """Bytes: Adam's state, gradients, and on a GPU the most that was allocated."""

    @property
    def step(self) -> float:
        return statistics.median(self.seconds[SKIP:])

    @property
    def rate(self) -> float:
        """Rows a second."""
        per_step = self.rows / len(self.seconds)
        return per_step / statistics.mean(self.seconds[SKIP:])


CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch": ("torch", {}),
    "Trainer": ("trainer", {}),
    "rehone": ("ray", {}),
    "rehone, 2 workers": ("ray", {"scaling.workers": 2}),
    "rehone, full": ("ray", {"method.name": "full", "training.learning_rate": 1e-4}),
    "torch, full": ("torch", {"method.name": "full", "training.learning_rate": 1e-4}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", help="a folder; the example's when not given")
    parser.add_argument("--rows", type=int, default=1280, help="training rows, each seen once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each worker, on a CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--json", type=Path, help="keep what was measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    prepare_environment()
    if chosen.one:
        print(json.dumps(asdict(one(chosen))))
        return
    with tempfile.TemporaryDirectory() as folder:
        names = [n for n in chosen.only if chosen.device == "cpu" or "2 workers" not in n]
        ran: dict[str, list[Ran]] = {name: [] for name in names}
        for turn in range(chosen.repeats):
            for name in names:
                ran[name].append(measured(name, Path(folder)))
                latest = ran[name][-1]
                print(f"{turn + 1}: {name}: {latest.step * 1e3:.1f} ms a step", file=sys.stderr, flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({n: [asdict(r) for r in made] for n, made in ran.items()}, indent=1))
    print(report(ran, chosen))


def measured(name: str, folder: Path) -> Ran:
    command = [sys.executable, *sys.argv, "--one", name, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Ran(**json.loads(done.stdout.splitlines()[-1]))


def one(chosen: argparse.Namespace) -> Ran:
    """This process is one contestant."""
    began = time.monotonic()
    kind, changes = CONTESTANTS[chosen.one]
    made = spec(chosen, changes)
    place = Place.from_settings(Settings(storage=str(chosen.folder / "store")))
    run: Callable[[Spec, Place, argparse.Namespace], dict[str, Any]] = {
        "torch": by_hand,
        "trainer": by_trainer,
        "ray": on_ray,
    }[kind]
    found = run(made, place, chosen)
    return Ran(rows=chosen.rows, whole=time.monotonic() - began, **found)


def spec(chosen: argparse.Namespace, changes: Mapping[str, Any]) -> Spec:
    return specfile.load(EXAMPLES / "sentiment.yaml").with_values(
        {
            "training.epochs": 1,
            "training.evaluations_per_epoch": 1,
            "training.precision": chosen.precision,
            "scaling.workers": 1,
            "scaling.cpus_per_worker": chosen.threads,
            "scaling.use_gpu": chosen.device == "cuda",
            **({"base_model": chosen.base_model} if chosen.base_model else {}),
            **changes,
        }
    )


def rows_of(made: Spec, place: Place, chosen: argparse.Namespace) -> tuple[Any, Any, Any]:
    data = prepare(made, place)
    train = data.rows(place.storage, TRAIN).head(chosen.rows)
    if len(train) < chosen.rows:
        raise SystemExit(f"there are {len(train)} training rows only: --rows")
    return data, train, data.rows(place.storage, VALIDATION)


def encoded(made: Spec, data: Any, train: Any) -> tuple[Any, Any]:
    task = tasks.get(made.task)
    processor = task.processor(model.locate(made.base_model))
    return processor, task.encode(processor, list(train["input"]), list(train["label"]), data.labels, made.bounds)


def by_hand(made: Spec, place: Place, chosen: argparse.Namespace) -> dict[str, Any]:
    """A bare loop: torch's AdamW, clipping, a schedule; gradients add up over micro-batches."""
    import torch

    torch.set_num_threads(chosen.threads)
    data, train, _ = rows_of(made, place, chosen)
    _, rows = encoded(made, data, train)
    net = model.trainable(made, data.labels).to(chosen.device)
    weights = [p for p in net.parameters() if p.requires_grad]
    training = made.training
    total = math.ceil(len(rows) / training.global_batch_size)
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay)
    warm = max(1, round(total * training.warmup_ratio))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, (total - s) / max(1, total - warm + 1))
    )
    net.train()
    seconds, losses = [], []
    for step, batch in enumerate(
        batches.steps(rows.lengths, training.global_batch_size, training.seed, begin=0, end=total)
    ):
        began = time.perf_counter()
        torch.manual_seed(training.seed + step + 1)
        kept = []
        for part, share in batches.micro_batches(batch, 0, 1, made.accumulation(1)):
            inputs = {k: v.to(chosen.device) for k, v in rows.batch(part).items()}
            with torch.autocast(chosen.device, torch.bfloat16, enabled=chosen.precision == "bf16"):
                loss = share * net(**inputs).loss
            (loss / made.accumulation(1)).backward()
            kept.append(loss.item())
        torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm)
        optimizer.step()
        schedule.step()
        gradients = sum(p.grad.nbytes for p in weights if p.grad is not None)
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        losses.append(sum(kept) / len(kept))
    trainable, whole = model.trainable_share(net)
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t))
    memory = torch.cuda.max_memory_allocated() if chosen.device == "cuda" else 0
    sizes = {"trainable": trainable / whole, "optimizer": state, "gradients": gradients, "memory": memory}
    return {"seconds": seconds, "losses": losses, **sizes}


def by_trainer(made: Spec, place: Place, chosen: argparse.Namespace) -> dict[str, Any]:
    """transformers' Trainer as its documentation has it: rows in random order, padded to the longest of a batch."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(chosen.threads)
    data, train, _ = rows_of(made, place, chosen)
    processor, rows = encoded(made, data, train)
    listed = [
        {"input_ids": ids.tolist(), "labels": int(label)} for ids, label in zip(rows.ids, rows.labels, strict=True)
    ]
    training, seconds, losses = made.training, [], []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        began = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            Clock.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            seconds.append(now - Clock.began)  # the batch is fetched before a step begins
            Clock.began = now

        def on_log(self, *_: Any, logs: Mapping[str, float] = {}, **__: Any) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model.trainable(made, data.labels),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=training.micro_batch_size,
                gradient_accumulation_steps=made.accumulation(1),
                learning_rate=training.learning_rate,
                weight_decay=training.weight_decay,
                warmup_steps=round(training.warmup_ratio * math.ceil(len(listed) / training.global_batch_size)),
                max_grad_norm=training.max_grad_norm,
                bf16=chosen.precision == "bf16",
                seed=training.seed,
                save_strategy="no",
                logging_steps=10**6,
                report_to=[],
                disable_tqdm=True,
                use_cpu=chosen.device == "cpu",
                dataloader_pin_memory=chosen.device == "cuda",
            ),
            train_dataset=listed,
            processing_class=processor,
            callbacks=[Clock()],
        ).train()
    return {"seconds": seconds, "losses": losses}


def on_ray(made: Spec, place: Place, chosen: argparse.Namespace) -> dict[str, Any]:
    """The project's own way: Ray Train, DeepSpeed, checkpoint and validation at the end."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = chosen.device == "cuda"
    with connect(place.settings, num_cpus=made.scaling.most_workers * chosen.threads + 1):
        data, train, validation = rows_of(made, place, chosen)
        parts = {data.file(TRAIN): train, data.file(VALIDATION): validation}
        rows = tokens.kept(place.storage, parts, made, data.labels)
        job = loop.Work(made, data.labels, *rows, zero_stage=1 if made.scaling.most_workers > 1 else 0, epochs=1)
        kept = chosen.folder / f"{time.monotonic_ns()}.json"
        result = TorchTrainer(
            timed,
            train_loop_config={"work": job, "kept": str(kept)},
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=made.scaling.most_workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": chosen.threads},
            ),
            run_config=RunConfig(storage_path=str(chosen.folder / "checkpoints")),
        ).fit()
    return {**json.loads(kept.read_text()), "accuracy": result.metrics["validation_accuracy"]}


def timed(config: dict[str, Any]) -> None:
    """`train.worker` with a clock around each step and the engine's sizes after the last."""
    import ray.train

    from jobs.training import train

    seconds: list[float] = []
    losses: list[float] = []
    sizes: dict[str, Any] = {}
    step = loop._step  # noqa: SLF001 - the loop's own, as it is

    def clocked(engine: Any, *rest: Any) -> float:
        began = time.perf_counter()
        loss = step(engine, *rest)
        seconds.append(time.perf_counter() - began)
        losses.append(loss)
        sizes["engine"] = engine
        return loss

    loop._step = clocked  # type: ignore[assignment]  # noqa: SLF001
    train.worker(config)
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["kept"]).write_text(json.dumps({"seconds": seconds, "losses": losses, **held(sizes["engine"])}))


def held(engine: Any) -> dict[str, Any]:
    import torch

    trainable, whole = model.trainable_share(engine.module)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"trainable": trainable / whole, "memory": memory}


def report(ran: Mapping[str, Sequence[Ran]], chosen: argparse.Namespace) -> str:
    title = f"{chosen.rows} rows, {chosen.device}, {chosen.precision}, {chosen.repeats} turns"
    head = ["", "ms a step", "rows/s", "from start to end, s", "last loss", "validation accuracy"]
    lines = [
        [
            name,
            spread([1e3 * r.step for r in made], "{:.1f}"),
            spread([r.rate for r in made], "{:.0f}"),
            spread([r.whole for r in made], "{:.1f}"),
            f"{made[0].losses[-1]:.4f}" if len(made[0].losses) > 1 else "",
            "" if math.isnan(made[0].accuracy) else f"{made[0].accuracy:.3f}",
        ]
        for name, made in ran.items()
    ]
    parts = [table(title, head, lines)]
    ratios = [
        ["step time over a bare torch loop", "at most 1.03", ratio(ran, "rehone", "torch", lambda r: r.step)],
        [
            "step time over a bare torch loop, full",
            "at most 1.03",
            ratio(ran, "rehone, full", "torch, full", lambda r: r.step),
        ],
        [
            "rows/s over Trainer with its default padding",
            "at least 1.3",
            ratio(ran, "rehone", "Trainer", lambda r: r.rate),
        ],
        ["rows/s of 2 workers over 1", "at most 2", ratio(ran, "rehone, 2 workers", "rehone", lambda r: r.rate)],
        ["start to end over a bare torch loop", "", ratio(ran, "rehone", "torch", lambda r: r.whole)],
    ]
    parts.append(table("", ["ratio", "goal", "median (least to most)"], [r for r in ratios if r[2]]))
    if {"torch", "rehone"} <= ran.keys():
        pairs = zip(ran["rehone"][0].losses, ran["torch"][0].losses, strict=True)
        worst = max(abs(a - b) / abs(b) for a, b in pairs)
        parts.append(f"losses of rehone and the bare loop differ by {worst:.1e} of their size at most")
    if {"torch", "torch, full"} <= ran.keys():
        parts.append(methods(ran))
    return "\n".join(parts)


def methods(ran: Mapping[str, Sequence[Ran]]) -> str:
    """LoRA beside full fine-tuning, and beside what is said of it."""
    lora, full = ran["torch"], ran["torch, full"]
    lines = [
        ["trainable share", f"{lora[0].trainable:.2%}", "100%", "", CLAIMS["trainable share"]],
        *(
            [what, f"{a / 2**20:.1f} MiB", f"{b / 2**20:.1f} MiB", f"{a / b - 1:+.1%}", CLAIMS.get(what, "-70%")]
            for what, a, b in (
                ("optimizer bytes", lora[0].optimizer, full[0].optimizer),
                ("gradient bytes", lora[0].gradients, full[0].gradients),
                ("most memory of the device", lora[0].memory, full[0].memory),
            )
            if b
        ),
        [
            "step time",
            *(f"{1e3 * statistics.median(r.step for r in m):.1f} ms" for m in (lora, full)),
            f"{statistics.median(a.step / b.step for a, b in zip(lora, full, strict=True)) - 1:+.1%}",
            CLAIMS["step time"],
        ],
    ]
    if {"rehone", "rehone, full"} <= ran.keys():
        a, b = ran["rehone"][0].accuracy, ran["rehone, full"][0].accuracy
        lines.append(["accuracy", f"{a:.3f}", f"{b:.3f}", f"{a - b:+.3f}", "the same"])
    return table("", ["LoRA against full fine-tuning", "LoRA", "full", "", "claimed"], lines)


def ratio(ran: Mapping[str, Sequence[Ran]], ours: str, theirs: str, of: Callable[[Ran], float]) -> str:
    """Turn by turn: both ran in the same minute."""
    if not {ours, theirs} <= ran.keys():
        return ""
    return spread([of(a) / of(b) for a, b in zip(ran[ours], ran[theirs], strict=True)], "{:.3f}")


if __name__ == "__main__":
    main()
