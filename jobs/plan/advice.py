"""Which way the number of examples and the size of the base model point. Pure rules of thumb; nothing is forbidden.

Under some hundred examples a prompt is worth as much as training (Le Scao & Rush 2021); low-rank adapters hold
their own against full fine-tuning on little data and ask less memory (Hu et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

_PROMPT, _ADAPTER, _TUNE, _SCRATCH = 100, 1_000, 10_000, 100_000

_WANTED = ((7e9, 10_000), (1e9, 1_000))
"""Parameters of the base model, and the examples that fine-tuning one of that size wants at least."""


@dataclass(frozen=True)
class Advice:
    """`warning` when the spec does something else than what is said."""

    text: str
    warning: bool = False


def advise(examples: int, parameters: int, method: str) -> tuple[Advice, ...]:
    """For `examples` training rows, a base model of `parameters` weights and the spec's method."""
    return tuple(filter(None, (_by_examples(examples, method), _by_size(examples, parameters))))


def _by_examples(examples: int, method: str) -> Advice:
    if examples < _PROMPT:
        return Advice(
            f"{examples} training rows: fewer than {_PROMPT} are for a prompt, not for training", warning=True
        )
    if examples < _ADAPTER:
        said = f"{examples} training rows: under {_ADAPTER:,} LoRA or augmentation is the way"
        return Advice(said + (", full fine-tuning may overfit" if method == "full" else ""), method == "full")
    if examples <= _TUNE:
        return Advice(f"{examples:,} training rows: {_ADAPTER:,} to {_TUNE:,} are for fine-tuning")
    if examples <= _SCRATCH:
        return Advice(f"{examples:,} training rows: more than enough for fine-tuning, too few to train from scratch")
    return Advice(f"{examples:,} training rows: fine-tuning; from scratch only where no base model knows the language")


def _by_size(examples: int, parameters: int) -> Advice | None:
    for size, wanted in _WANTED:
        if parameters >= size:
            said = f"a base model of {parameters / 1e9:.1f}B parameters wants more than {wanted:,} examples"
            return Advice(said, examples <= wanted)
    return None
