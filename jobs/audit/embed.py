"""Embeddings of many texts by the base model as it is: the mean of its last layer, as serving has it.

One process takes a few thousand rows; more go through Ray Data, which streams them past a pool of workers. Either way
the result lies in a file and not in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.console import meter
from jobs.spec import Spec

Part = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Positions in the texts, and their embeddings."""

_CHUNK = 512  # texts that are sorted by length together, and a block of Ray Data


class Embedder:
    """Loads the model once; then texts in, embeddings of shape (texts, hidden) and float32 out."""

    def __init__(self, task_name: str, base_model: str, max_length: int, threads: int) -> None:
        import torch

        from jobs import tasks
        from jobs.models import model
        from jobs.models.predictor import Predictor
        from jobs.tasks.task import Bounds

        torch.set_num_threads(threads)
        task = tasks.get(task_name)
        net = model.base(task, base_model, ("a", "b"), seed=0)  # with a head that nothing here asks
        net = net.cuda() if torch.cuda.is_available() else net
        processor = task.processor(model.locate(base_model))
        self._predict = Predictor(net, task, processor, ("a", "b"), Bounds(max_length, 1))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([output.embedding for output in self._predict(texts)])

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A batch of Ray Data with `at, text` in, `at, embedding` out."""
        return {"at": batch["at"], "embedding": self.embed(list(batch["input"]))}


def embed(texts: Sequence[str], spec: Spec, file: Path, *, with_ray: bool) -> NDArray[np.float32]:
    """Embeddings of shape (texts, hidden), mapped from `file`. With Ray it must be connected."""
    parts = _by_ray(texts, spec) if with_ray else _here(texts, spec)
    out: NDArray[np.float32] | None = None
    done = 0
    with meter("embed", len(texts)) as bar:
        for at, vectors in parts:
            if out is None:
                out = np.lib.format.open_memmap(file, "w+", np.float32, (len(texts), vectors.shape[1]))
            out[at] = vectors
            done += len(at)
            bar.update(done)
    assert out is not None
    return out


def _here(texts: Sequence[str], spec: Spec) -> Iterator[Part]:
    import torch

    embedder = Embedder(spec.task, spec.base_model, spec.training.max_length, torch.get_num_threads())
    for start in range(0, len(texts), _CHUNK):
        some = texts[start : start + _CHUNK]
        yield np.arange(start, start + len(some)), embedder.embed(some)


def _by_ray(texts: Sequence[str], spec: Spec) -> Iterator[Part]:
    import pyarrow as pa
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the bar says how far it is
    blocks = [
        pa.table({"at": np.arange(start, min(start + _CHUNK, len(texts))), "input": texts[start : start + _CHUNK]})
        for start in range(0, len(texts), _CHUNK)
    ]
    scaling = spec.scaling
    embedded = ray.data.from_arrow(blocks).map_batches(
        Embedder,
        fn_constructor_args=(spec.task, spec.base_model, spec.training.max_length, scaling.cpus_per_worker),
        batch_size=_CHUNK,
        compute=ray.data.ActorPoolStrategy(size=min(scaling.most_workers, len(blocks))),
        num_cpus=scaling.cpus_per_worker,
        num_gpus=scaling.gpus,
    )
    for batch in embedded.iter_batches(batch_size=_CHUNK, batch_format="numpy"):
        yield batch["at"], batch["embedding"]
