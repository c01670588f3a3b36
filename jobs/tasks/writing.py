"""What all tasks whose answer is a text share: the loss over its tokens, and writing it token by token.

Decoding is greedy: the same input gets the same answer, which golden inputs and shadows rely on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import TrainingError
from jobs.training.columns import Ragged

from .task import Bounds, Output, Piece, Sampling

if TYPE_CHECKING:
    import torch

_APART = 1e-2  # relative difference of losses: what the order of additions and half precision make

Row = tuple[NDArray[Any], NDArray[Any]]
"""The tokens of a row to learn from, and what is learned of them."""

SKIPPED = -100  # tokens that are not learned: torch's cross entropy leaves them out


@dataclass(frozen=True)
class Sequences:
    """Token ids of each row and, to learn from, those of its target; `joint` where the one follows on the other.

    A row that is only to be answered is filled up on the left when `joint`: what is written follows on its last token.
    """

    ids: Ragged
    targets: Ragged | None
    pad: int
    joint: bool
    most: int | None = None
    """Tokens up to which rows to learn from are put one after another."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.ids.lengths if self.targets is None else self.ids.lengths + self.targets.lengths

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, (rows, longest), and to learn from `labels`, SKIPPED where none is."""
        from jobs.training import batches

        if self.targets is None:
            tokens, mask = batches.padded([self.ids[i] for i in rows], self.pad, left=self.joint)
            return {"input_ids": tokens, "attention_mask": mask}
        made = [self.row(i) for i in rows]
        return filled(made, self.pad) if self.most is None else packed(made, self.pad, self.most)

    def row(self, at: int) -> Row:
        """Tokens of a row to learn from, and what is learned of them."""
        assert self.targets is not None
        ids, target = self.ids[at], self.targets[at]
        if not self.joint:
            return ids, target
        return np.concatenate([ids, target]), np.concatenate([np.full_like(ids, SKIPPED), target])


def filled(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask`, (rows, longest), and `labels`, SKIPPED where none is."""
    from jobs.training import batches

    tokens, mask = batches.padded([ids for ids, _ in rows], pad)
    labels, _ = batches.padded([wanted for _, wanted in rows], SKIPPED)
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def packed(rows: Sequence[Row], pad: int, most: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `position_ids`, `labels` and `rows`, all (packed rows, longest): of each token where it is in its
    row, and which row that is, -1 for what fills up.

    There is no mask: by it a model of transformers' sees that positions begin anew, and keeps rows apart.
    """
    from jobs.training import batches

    parts = batches.packed([len(ids) for ids, _ in rows], most)
    tokens, _ = batches.padded([np.concatenate([rows[row][0] for row in part]) for part in parts], pad)
    # The first token of a row follows on another row's: it is not learned.
    wanted = [np.concatenate([[SKIPPED, *rows[row][1][1:]] for row in part]) for part in parts]
    labels, _ = batches.padded(wanted, SKIPPED)
    sizes = [[len(rows[row][0]) for row in part] for part in parts]
    positions, _ = batches.padded([np.concatenate([np.arange(size) for size in part]) for part in sizes], 0)
    owners, _ = batches.padded([np.repeat(part, size) for part, size in zip(parts, sizes, strict=True)], -1)
    return {"input_ids": tokens, "position_ids": positions, "labels": labels, "rows": owners}


def require_apart(net: Any, data: Sequences) -> None:
    """Raises TrainingError where a model reads across rows that are packed, by the losses of the two shortest."""
    import torch

    device = next(net.parameters()).device
    shortest = np.argsort(data.lengths, kind="stable")[:2]
    training = net.training
    net.eval()
    with torch.no_grad():
        found = []
        for one in (data, replace(data, most=None)):
            batch = {name: part.to(device) for name, part in one.batch(shortest).items()}
            wanted, owners = batch.pop("labels"), batch.pop("rows", None)
            logits = net(**batch, use_cache=False).logits
            found.append(losses(logits[:, :-1], wanted[:, 1:], None if owners is None else owners[:, 1:])[0])
    net.train(training)
    if not torch.allclose(*found, rtol=_APART, atol=_APART):
        raise TrainingError(
            f"a {net.config.model_type} model reads across packed rows",
            where="data.packing",
            mend="data.packing: false",
        )


def endings(tokenizer: Any, targets: Sequence[str], most: int) -> Ragged:
    """Tokens of each target and the one that ends it, `most` at most."""
    made = tokenizer(list(targets), add_special_tokens=False, truncation=True, max_length=max(1, most - 1))["input_ids"]
    return Ragged.of([[*ids, tokenizer.eos_token_id] for ids in made])


def losses(
    logits: torch.Tensor, wanted: torch.Tensor, owners: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of each row and share of its tokens that are the likeliest: means over what is not SKIPPED.

    `logits`: (rows, tokens, vocabulary), `wanted`: (rows, tokens), in step; as are the `owners` of packed tokens.
    """
    import torch

    each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), wanted, reduction="none")
    counted = (wanted != SKIPPED).float()
    right = (logits.detach().argmax(-1) == wanted).float() * counted
    if owners is None:
        sums = [part.sum(1) for part in (each, right, counted)]
    else:
        at, rows = owners.clamp(min=0).flatten(), int(owners.max()) + 1  # what fills up adds nothing to row 0
        sums = [part.new_zeros(rows).index_add(0, at, part.flatten()) for part in (each, right, counted)]
    tokens = sums[2].clamp(min=1)
    return sums[0] / tokens, sums[1] / tokens


def answer(net: Any, tokenizer: Any, batch: dict[str, torch.Tensor], bounds: Bounds) -> list[Output]:
    """What the model writes, with the chance of just these tokens.

    The embedding is the mean of the last layer over the input: the encoder's, where there is one.
    """
    import torch

    decodes = not net.config.is_encoder_decoder
    writer, given = _prompted(net, batch) if decodes and _has_prompt(net) else (net, batch)
    made = writer.generate(
        **given,
        max_new_tokens=bounds.answer,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        return_dict_in_generate=True,
        output_logits=True,
        output_hidden_states=True,
    )
    steps = torch.stack(list(made.logits), dim=1).float().log_softmax(-1)
    written = made.sequences[:, -steps.shape[1] :]
    ended = (written == tokenizer.eos_token_id).int().cumsum(1)
    counted = (ended - (written == tokenizer.eos_token_id).int()) == 0  # the token that ends counts, those after not
    chances = (steps.gather(2, written.unsqueeze(2)).squeeze(2) * counted).sum(1).exp().cpu().numpy()
    embeddings = _embedded(made, batch).cpu().numpy()
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    return [
        Output(text.strip(), float(chance), {}, embedding)
        for text, chance, embedding in zip(texts, chances, embeddings, strict=True)
    ]


def _has_prompt(net: Any) -> bool:
    """Whether PEFT puts a learned prompt in front of what the network reads."""
    config = getattr(net, "active_peft_config", None)
    return config is not None and config.is_prompt_learning


def _prompted(net: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model without its learned prompt, and inputs with the prompt right in front of each row's first token.

    PEFT puts it in front of what fills a row up on the left, so that an answer would depend on the rows beside it.
    """
    import torch

    tokens, mask = batch["input_ids"], batch["attention_mask"]
    embedded, prompts = net.word_embeddings(tokens), net.get_prompt(len(tokens))
    begins = (mask.shape[1] - mask.sum(1)).tolist()
    rows = [
        torch.cat([row[:at], prompt.to(row.dtype), row[at:]])
        for row, prompt, at in zip(embedded, prompts, begins, strict=True)
    ]
    whole = torch.stack(rows)
    there = torch.arange(whole.shape[1], device=mask.device) >= torch.tensor(begins, device=mask.device)[:, None]
    return net.get_base_model(), {"inputs_embeds": whole, "attention_mask": there.to(mask.dtype)}


def pieces(net: Any, tokenizer: Any, ids: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
    """What a causal model writes after `ids`, a token a step: between two of them others may use it."""
    read: list[NDArray[np.float32]] = []
    return told(_tokens(net, ids, sampling, read.append), tokenizer, len(ids), sampling, lambda: read[0])


def _tokens(
    net: Any, ids: Sequence[int], sampling: Sampling, embedded: Callable[[NDArray[np.float32]], None]
) -> Iterator[tuple[int, float]]:
    """Tokens with the logarithms of their chances, without end. `embedded` is given what the input is like."""
    import torch

    device = next(net.parameters()).device
    plain = net.get_base_model() if _has_prompt(net) else net
    draw = torch.Generator(device)
    draw.manual_seed(random.getrandbits(63) if sampling.seed is None else sampling.seed)
    step, cache = torch.tensor([list(ids)], device=device), None
    while True:
        with torch.inference_mode():
            # A learned prompt stands in front once, and is in the cache from then on.
            ask, first = (net, True) if cache is None else (plain, False)
            made = ask(input_ids=step, past_key_values=cache, use_cache=True, output_hidden_states=first)
            if first:
                embedded(made.hidden_states[-1][0, -len(ids) :].float().mean(0).cpu().numpy())
            cache, logits = made.past_key_values, made.logits[0, -1].float()
            token = _drawn(logits, sampling, draw)
            chance = float(logits.log_softmax(-1)[token])
        yield token, chance
        step = torch.tensor([[token]], device=device)


def told(
    tokens: Iterator[tuple[int, float]],
    tokenizer: Any,
    read: int,
    sampling: Sampling,
    embedding: Callable[[], NDArray[np.float32]],
) -> Iterator[Piece]:
    """The text of tokens as they come, each with the logarithm of its chance, up to where it ends.

    `read` tokens were in front of them, whose `embedding` is asked for at the end.
    """
    written: list[int] = []
    said, chance = "", 0.0
    for token, log_chance in tokens:
        chance += log_chance
        ends = token == tokenizer.eos_token_id
        written += [] if ends else [token]
        full = tokenizer.decode(written, skip_special_tokens=True)
        cut = min((at for at in map(full.find, sampling.stop) if at >= 0), default=None)
        ended = "stop" if ends or cut is not None else "length" if len(written) >= sampling.most else None
        # A character of several tokens is not there before its last one, nor is it known yet whether a stop has begun.
        ready = full[:cut] if ended else full[: _settled(full, sampling.stop)]
        count = len(written) + ends
        if ended:
            output = Output(ready.strip(), math.exp(chance), {}, embedding())
            yield Piece(ready[len(said) :], read, count, ended, output)
            return
        yield Piece(ready[len(said) :], read, count)
        said = ready if len(ready) > len(said) else said


def whole(tokenizer: Any, tokens: Sequence[int], chances: Sequence[float], embedding: NDArray[np.float32]) -> Output:
    """The answer that these tokens are, with the logarithms of their chances: as `answer` has it."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Output(text.strip(), math.exp(sum(chances)), {}, embedding)


def embedded(net: Any, rows: Sequence[Sequence[int]], pad: int) -> NDArray[np.float32]:
    """What `answer` and `pieces` keep of inputs, (rows, hidden), where another engine writes: one pass, no head."""
    import torch

    from jobs.training import batches

    # Filled up on the right, which no token before it sees.
    tokens, mask = (part.to(net.device) for part in batches.padded([list(row) for row in rows], pad))
    with torch.inference_mode():
        made = net.base_model(input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=True)
        weight = mask.unsqueeze(-1)
        mean = (made.hidden_states[-1].float() * weight).sum(1) / weight.sum(1)
    found: NDArray[np.float32] = mean.cpu().numpy()
    return found


def chances(net: Any, row: Sequence[int]) -> list[float]:
    """Logarithms of the chances of a row's tokens but the first, each after those before it."""
    import torch

    tokens = torch.tensor([row], device=net.device)
    with torch.inference_mode():
        logits = net(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        made: list[float] = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0].tolist()
    return made


def _drawn(logits: torch.Tensor, sampling: Sampling, draw: torch.Generator) -> int:
    import torch

    if sampling.temperature == 0:
        return int(logits.argmax())
    shares, order = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    # The smallest set of tokens that has top_p of the probability, the likeliest always in it.
    shares[1:][shares.cumsum(-1)[:-1] >= sampling.top_p] = 0
    return int(order[torch.multinomial(shares, 1, generator=draw)])


def _settled(text: str, stops: Sequence[str]) -> int:
    """How much of a text can be sent: not the half of a character, not what may become a stop."""
    if text.endswith("\ufffd"):
        return len(text.rstrip("\ufffd"))
    held = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return len(text) - max(held, default=0)


def _embedded(made: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    encoder = getattr(made, "encoder_hidden_states", None)
    last = (encoder[-1] if encoder is not None else made.hidden_states[0][-1]).float()
    mask = batch.get("attention_mask")
    if mask is None or mask.shape[1] > last.shape[1]:  # a speech encoder hears all of its input
        return last.mean(1)
    last = last[:, -mask.shape[1] :]  # without a learned prompt in front
    weight = mask.unsqueeze(-1)
    return (last * weight).sum(1) / weight.sum(1)
