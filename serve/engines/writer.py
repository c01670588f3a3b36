"""Texts by vLLM: many are written at once, each token of all of them in one pass (continuous batching).

Tokens go in and tokens come out. Prompts are made and texts are read here, as they are for PyTorch's own, whose network
stays in memory beside it for the embeddings of inputs, which vLLM does not give with a text.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cluster.errors import ClusterError
from jobs.explain.explanation import Explanation
from jobs.models.predictor import Predictor
from jobs.spec import VllmSpec
from jobs.tasks import writing
from jobs.tasks.task import Output, Piece, Sampling

from . import likely
from .child import NAME, Child
from .likely import Answers
from .parity import Golden

_TIMES, _LEAST = 3.0, 1e-3
"""How far vLLM in half precision may be from the trainer in how likely it finds the golden answers: so many times as
far as PyTorch is in the same precision, or so little of a chance's logarithm. Decision 25 has what was measured."""
_SIZES = {"float32": 4}  # bytes of a number; two of the others
_TEXTS = 64  # of the longest kind, for which a CPU has room at once; more wait


class Writer:
    """Answers as its predictor does, by vLLM on a folder that `whole` made of it."""

    base, at_once = None, True

    def __init__(self, plain: Predictor, child: Child, engine: str) -> None:
        self.labels, self.engine, self._plain, self._child = plain.labels, engine, plain, child
        self._prompting = threading.Lock()  # a tokenizer is not for several threads
        self._reader = Reader(plain.embedded)

    def __call__(self, inputs: Sequence[str]) -> list[Output]:
        """One Output an input, in order, by one request; as many requests at once as there are."""
        prompts, bounds = self._prompts(inputs), self._plain.bounds
        asked = self._asked(prompts, Sampling(bounds.answer)) | _habits(self._plain.net)
        embeddings = self._reader.read(prompts)  # meanwhile
        choices = self._child.complete(asked)
        return [
            writing.whole(self._plain.tokenizer, *_parts(choice), embedding)
            for choice, embedding in zip(choices, embeddings.result(), strict=True)
        ]

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        """The answer piece by piece; as many at once as are asked for."""
        bound = self._plain.bound(sampling)
        (prompt,) = self._prompts([given])
        tokens = self._tokens(self._asked([prompt], bound))
        return writing.told(
            tokens,
            self._plain.tokenizer,
            len(prompt),
            bound,
            lambda: self._reader.read([prompt]).result()[0],
        )

    def fault(self, target: str) -> str:
        return self._plain.fault(target)

    def explain(self, given: str, label: str | None, steps: int) -> Explanation:
        return self._plain.explain(given, label, steps)

    def lengths(self, inputs: Sequence[str]) -> list[int]:
        return [len(prompt) for prompt in self._prompts(inputs)]

    def ready(self) -> None:
        """Raises ClusterError when vLLM has ended."""
        self._child.ready()

    def _prompts(self, inputs: Sequence[str]) -> list[list[int]]:
        with self._prompting:
            return self._plain.prompts(inputs)

    def _asked(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> dict[str, Any]:
        """A text ends with our tokenizer's own last token alone; for what else stops it is looked as it is read."""
        return {
            "model": NAME,
            "prompt": prompts,
            "max_tokens": sampling.most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "ignore_eos": True,
            "stop_token_ids": [self._plain.tokenizer.eos_token_id],
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def _tokens(self, asked: dict[str, Any]) -> Iterator[tuple[int, float]]:
        for choice in self._child.stream(asked):
            yield from zip(*_parts(choice), strict=True)
        raise ClusterError("vLLM ended a text before its end", mend="ask again")


Embeddings = list[NDArray[np.float32]]


class Reader:
    """A network with one caller at a time: what waits for it is read together. `read` gives a future at once."""

    def __init__(self, embedded: Callable[[Sequence[Sequence[int]]], Embeddings]) -> None:
        self._embedded, self._thread = embedded, ThreadPoolExecutor(1, "vllm-embeddings")
        self._waiting, self._turn = list[tuple[Sequence[Sequence[int]], Future[Embeddings]]](), threading.Lock()

    def read(self, prompts: Sequence[Sequence[int]]) -> Future[Embeddings]:
        made: Future[Embeddings] = Future()
        with self._turn:
            self._waiting.append((prompts, made))
        self._thread.submit(self._read)
        return made

    def _read(self) -> None:
        with self._turn:
            waiting, self._waiting = self._waiting, []
        try:
            whole = iter(self._embedded([prompt for prompts, _ in waiting for prompt in prompts]) if waiting else [])
        except Exception as error:  # noqa: BLE001 - the network's, for whoever asked
            for _, made in waiting:
                made.set_exception(error)
            return
        for prompts, made in waiting:
            made.set_result(list(itertools.islice(whole, len(prompts))))


def _parts(choice: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Tokens and the logarithms of their chances; none of a last part that only says that it is the last."""
    tokens, chances = choice["token_ids"] or [], choice["logprobs"]
    return tokens, chances["token_logprobs"] if tokens else []


def _habits(net: Any) -> dict[str, float]:
    """What transformers takes for granted of a model when it writes a whole answer."""
    penalty = net.generation_config.repetition_penalty
    return {} if penalty is None else {"repetition_penalty": penalty}


def whole(plain: Predictor, folder: Path) -> Path:
    """The model as vLLM reads it, in a new `folder`: one set of weights, adapters merged, and its configuration."""
    plain.net.save_pretrained(str(folder))
    return folder


def open_(plain: Predictor, folder: Path, how: VllmSpec, golden: Golden) -> Writer:
    """vLLM on what `whole` made. Raises ClusterError, also where half precision makes `golden` answers less likely."""
    if how.dtype == "float32":
        return Writer(plain, started(plain, folder, how), how.engine)
    answers = Answers.of(plain, golden)
    # Before vLLM takes its part of a GPU's memory.
    most = allowed(answers.apart(likely.rounded(plain.net, answers.rows, how.dtype)))
    child = started(plain, folder, how)
    mean = answers.apart(likely.by_vllm(child, answers.rows))
    if not mean <= most:  # nor what is no number
        raise ClusterError(
            f"finds a token of the golden answers {mean:.2g} (of its logarithm) more or less likely than the "
            f"trainer, {most:.2g} allowed",
            mend="serving.vllm.dtype: float32",
        )
    return Writer(plain, child, how.engine)


def allowed(own: float) -> float:
    """What vLLM in half precision may be apart from the trainer where PyTorch in the same precision is `own`."""
    return max(_LEAST, _TIMES * own)


def started(plain: Predictor, folder: Path, how: VllmSpec) -> Child:
    """vLLM on what `whole` made, whatever it writes. Raises ClusterError."""
    longest, size = plain.bounds.input + plain.bounds.answer, _SIZES.get(how.dtype, 2)
    positions = getattr(plain.net.config, "max_position_embeddings", None)
    if how.max_model_len is None and positions is not None and longest > positions:
        raise ClusterError(
            f"vLLM reads {positions} tokens of this model, training.max_length + training.max_answer are {longest}",
            mend="lower one of them and train again, or serving.engine: torch",
        )
    room = _TEXTS * longest * token_bytes(plain.net.config, size)
    gpu = torch.cuda.is_available()
    return Child(folder, longest, how, threads=torch.get_num_threads(), room=room, gpu=gpu)


def token_bytes(config: Any, size: int) -> int:
    """What is kept of a token while a text is written: a key and a value a layer and head, of `size` bytes a number."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * size * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width)
