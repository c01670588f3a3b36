"""How far half precision and wrong weights are from the trainer in how likely they find the golden answers.

    REHONE_VLLM=.vllm/bin/vllm python -m bench.half_precision [--also FOLDER]

Llamas learn from nothing, by the training loop itself: which parts an address has, the parts with their words, or how
an editorial goes on; and one that has read editorials learns addresses by LoRA. Golden are the answers to test rows of
the epoch with the lowest validation loss. vLLM reads them in both half precisions with the right weights, then with
weights that are wrong as a broken merge or a wrong checkpoint has them, which the same process loads anew; right ones
once more must give what the first did.

A difference is that of the logarithm of a golden token's chance from PyTorch's in fp32 (`serve/engines/likely.py`): the
mean over as many answers as a version has, the median of SETS such sets with the lowest and highest in brackets, and
the largest of any token. `times` is how many times PyTorch's own difference that is, with the right weights in the same
precision. `passed` are the sets that a server would serve.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bench.spread import spread
from cluster.console import say
from cluster.session import prepare_environment
from cluster.store.storage import Storage
from examples import sentiment_data
from jobs import specfile, tasks
from jobs.data import preparation
from jobs.data.dataset import DatasetVersion
from jobs.data.split import TEST
from jobs.models import model, publish
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.spec import Spec, VllmSpec
from jobs.sweep import group
from jobs.targets import spans
from jobs.training import loop, train
from serve.engines import likely, writer
from serve.engines.child import Child
from serve.engines.likely import Answers, Chances
from serve.engines.parity import Golden
from tests.jobs.tasks import projects

TASK = tasks.get("text-generation")
SET, SETS = publish._GOLDEN_ROWS, 6  # noqa: SLF001 - as many answers as a version has
Half = Literal["bfloat16", "float16"]
DTYPES: tuple[Half, ...] = ("bfloat16", "float16")
ROWS, SEED, NOISE = 1500, 0, 0.01
GIVEN = 8  # words of an editorial's sentence
RIGHT, TORCH = "right", "right, by PyTorch"

Differences = list[NDArray[np.float64]]
"""Of each answer's tokens but the last."""


def parts(file: Path, rows: int) -> None:
    """An address, and its parts with what each is."""
    made = []
    for row in projects._addresses(rows):  # noqa: SLF001
        said = (f"{s.label} {row['text'][s.start : s.end]}" for s in spans.spans(row["spans"])[:4])
        made.append((row["text"], " then ".join(said)))
    projects._write(file, made)  # noqa: SLF001


def editorials(file: Path, rows: int) -> None:
    """How a sentence begins and how it goes on, of which nobody can be sure."""
    read = [row["text"].split() for row in sentiment_data.read(sentiment_data.fetch()["editorials"])]
    made = [(" ".join(words[:GIVEN]), " ".join(words[GIVEN : GIVEN + 12])) for words in read if len(words) > 2 * GIVEN]
    projects._write(file, made[:rows])  # noqa: SLF001


@dataclass(frozen=True)
class Kind:
    write: Callable[[Path, int], None]
    layers: int
    width: int
    epochs: int
    answer: int
    """Tokens at most."""
    rate: float = 2e-3
    base: str = ""
    """Another of these, on which this one is an adapter."""


EDITORIALS = "4 x 128, editorials"
KINDS = {
    "2 x 64, outlines": Kind(projects.outlines, 2, 64, 6, 8),
    "4 x 128, parts": Kind(parts, 4, 128, 6, 40),
    "6 x 256, parts": Kind(parts, 6, 256, 5, 40, 1e-3),
    EDITORIALS: Kind(editorials, 4, 128, 5, 40),
    "LoRA on it, outlines": Kind(projects.outlines, 4, 128, 5, 8, 5e-3, EDITORIALS),
}
ALSO = Kind(editorials, 0, 0, 1, 40)


@dataclass
class Trained:
    """Every epoch's model is in `folder`, in a folder of its number, counted from 1."""

    spec: Spec
    folder: Path
    inputs: list[str]
    losses: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        return 1 + int(np.argmin(self.losses))

    def net(self, epoch: int | None = None, *, merge: bool = True) -> Any:
        folder = self.folder / str(epoch or self.best)
        return model.load(folder, TASK, self.spec.base_model, (), merge=merge).eval()

    def predictor(self, *, merge: bool = True) -> Predictor:
        processor = TASK.processor(self.spec.base_model)
        return Predictor(self.net(merge=merge), TASK, processor, (), self.spec.bounds)


def trained(kind: Kind, folder: Path, base: Trained | None) -> Trained:
    """In this process, with one thread."""
    place = folder / "base"
    place.mkdir(parents=True)
    if base is None:
        sizes = {"hidden_size": kind.width, "num_hidden_layers": kind.layers, "intermediate_size": 2 * kind.width}
        projects.llama(place, num_attention_heads=kind.width // 32, **sizes)
    else:
        base.net().save_pretrained(str(place))
        TASK.processor(base.spec.base_model).save_pretrained(str(place))
    made, data, storage = begun(kind, folder, place)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        made.losses.append(metrics["validation_loss"])
        shutil.copytree(checkpoint, folder / str(len(made.losses)), ignore=shutil.ignore_patterns("state-*"))
        say(f"epoch {len(made.losses)}, loss {metrics['train_loss']:.3f}, validation {metrics['validation_loss']:.3f}")

    loop.run(train.work(made.spec, data, storage), rank=0, world=1, threads=1, report=report)
    return made


def pretrained(kind: Kind, folder: Path, place: Path) -> Trained:
    """As it is, its only epoch."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "weights").symlink_to(place.resolve())
    made, _, _ = begun(kind, folder, place.resolve())
    made.losses.append(0.0)
    return made


def begun(kind: Kind, folder: Path, base: Path) -> tuple[Trained, DatasetVersion, Storage]:
    kind.write(folder / "data.csv", ROWS)
    made, storage = spec(kind, folder, base), Storage(str(folder / "storage"))
    data = preparation.prepare(made, storage)
    inputs = list(data.rows(storage, TEST)["input"].head(SET * SETS))
    assert len(inputs) == SET * SETS
    return Trained(made, folder, inputs), data, storage


def spec(kind: Kind, folder: Path, base: Path) -> Spec:
    training: dict[str, Any] = {
        "micro_batch_size": 16,
        "global_batch_size": 16,
        "evaluations_per_epoch": 1,
        "seed": SEED,
    }
    training |= {"epochs": kind.epochs, "learning_rate": kind.rate, "max_length": 48, "max_answer": kind.answer}
    return specfile.parse(
        {
            "name": "half",
            "task": "text-generation",
            "base_model": str(base),
            "data": {"source": str(folder / "data.csv"), "near_duplicates": None},
            "method": {"name": "lora" if kind.base else "full"},
            "training": training,
            "scaling": {"workers": 1},
        }
    )


def wrong(made: Trained) -> Iterator[tuple[str, Any]]:
    """What could be loaded in place of the right network."""
    if made.spec.method.name == "lora":
        yield "adapter not merged", model.base(TASK, made.spec.base_model, (), SEED)
        yield "adapter merged at half", halved(made.net(merge=False)).merge_and_unload()
    if made.best > 1:
        yield "the first epoch's", made.net(1)
    if made.best - 1 > 1:
        yield "the epoch before's", made.net(made.best - 1)
    for name, spoil in SPOILED.items():
        net = made.net()
        with torch.no_grad():
            spoil(net)
        yield name, net


def halved(net: Any) -> Any:
    for layer in model.adapted_layers(net):
        layer.scale_layer(0.5)
    return net


def swap(net: Any) -> None:
    first, second = net.model.layers[:2]
    kept = copy.deepcopy(first.state_dict())
    first.load_state_dict(second.state_dict())
    second.load_state_dict(kept)


def noise(net: Any) -> None:
    weight = net.lm_head.weight
    weight.mul_(1 + NOISE * torch.randn(weight.shape, generator=torch.Generator().manual_seed(SEED)))


SPOILED: Mapping[str, Callable[[Any], Any]] = {
    "two layers swapped": swap,
    "first up_proj halved": lambda net: net.model.layers[0].mlp.up_proj.weight.mul_(0.5),
    "last up_proj halved": lambda net: net.model.layers[-1].mlp.up_proj.weight.mul_(0.5),
    "last norm at 1": lambda net: net.model.norm.weight.fill_(1),
    "first norm at 1": lambda net: net.model.layers[0].input_layernorm.weight.fill_(1),
    f"head with {NOISE:.0%} noise": noise,
}


def golden(made: Trained) -> Answers:
    """As a trainer publishes them, the adapter beside the base, and as a server reads them."""
    labels = [output.label for output in made.predictor(merge=False)(made.inputs)]
    return Answers.of(made.predictor(), Golden(made.inputs, labels, [[]] * len(labels)))


def measured(dtype: Half, folders: Mapping[str, Path], answers: Answers, longest: int) -> dict[str, Differences]:
    """By vLLM, with the weights in each of the folders, the right ones' first."""
    how, gpu = VllmSpec(dtype=dtype), torch.cuda.is_available()  # type: ignore[call-arg]
    child = Child(folders[RIGHT], longest, how, threads=1, room=2**30, gpu=gpu)
    begun = likely.by_vllm(child, answers.rows)
    found = {name: begun if name == RIGHT else loaded(child, folder, answers) for name, folder in folders.items()}
    if loaded(child, folders[RIGHT], answers) != begun:
        raise SystemExit("vLLM does not load weights anew: the right ones answer otherwise than at first")
    return {name: answers.differences(one) for name, one in found.items()}


def loaded(child: Child, folder: Path, answers: Answers) -> Chances:
    """By vLLM once it has loaded the weights in another folder, which no server asks it to."""
    asked = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    child._http.post("/collective_rpc", json=asked).raise_for_status()  # noqa: SLF001
    child._http.post("/reset_prefix_cache").raise_for_status()  # noqa: SLF001
    return likely.by_vllm(child, answers.rows)


def compared(made: Trained) -> dict[Half, dict[str, Differences]]:
    """By dtype and by what was loaded."""
    answers, folders = golden(made), dict[str, Path]()
    for name, net in ((RIGHT, made.net()), *wrong(made)):
        folders[name] = made.folder / f"loaded-{len(folders)}"
        net.save_pretrained(str(folders[name]))
    ask = partial(measured, folders=folders, answers=answers, longest=made.spec.bounds.input + made.spec.bounds.answer)
    with ThreadPoolExecutor(len(DTYPES)) as threads:
        found = dict(zip(DTYPES, threads.map(ask, DTYPES), strict=True))
    for dtype in DTYPES:
        own = answers.differences(likely.rounded(made.net(), answers.rows, dtype))
        found[dtype] = {RIGHT: found[dtype].pop(RIGHT), TORCH: own, **found[dtype]}
    return found


def lines(found: Mapping[Half, Mapping[str, Differences]]) -> Iterator[list[str]]:
    for what in next(iter(found.values())):
        cells = []
        for by_what in found.values():
            means, own = means_of(by_what[what]), means_of(by_what[TORCH])
            times = [mean / other for mean, other in zip(means, own, strict=True)]
            passed = sum(mean <= writer.allowed(other) for mean, other in zip(means, own, strict=True))
            largest = max(float(answer.max(initial=0.0)) for answer in by_what[what])
            cells += [spread(means, "{:.2g}"), f"{largest:.2g}", spread(times, "{:.2g}"), str(passed)]
        yield [what, *cells]


def means_of(found: Differences) -> list[float]:
    """Of each set of as many answers as a version has."""
    return [float(np.concatenate(found[at : at + SET]).mean()) for at in range(0, len(found), SET)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--also", type=Path, metavar="FOLDER", help="a pretrained causal model, as transformers keeps it"
    )
    also = parser.parse_args().also
    prepare_environment()
    torch.set_num_threads(1)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # else it loads no other weights
    rows, learned = [], dict[str, Trained]()
    with tempfile.TemporaryDirectory() as home, group.alone():
        for number, (name, kind) in enumerate(KINDS.items()):
            say(name)
            learned[name] = trained(kind, Path(home) / str(number), learned.get(kind.base))
            rows += [[f"{name}:"], *lines(compared(learned[name]))]
        if also is not None:
            rows += [[f"{also.name}:"], *lines(compared(pretrained(ALSO, Path(home) / "also", also)))]
    head = ["", *(f"{dtype}{what}" for dtype in DTYPES for what in ("", " largest", " times", " passed"))]
    print(table(f"sets of {SET} answers, {SETS} of them", head, rows, None))


if __name__ == "__main__":
    main()
