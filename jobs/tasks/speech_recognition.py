"""What was said in a recording, by a model that hears and names a piece at a time (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.inputs import audio
from jobs.targets import text
from jobs.training.columns import Ragged, Texts

from .task import Bounds, Encoded, Output, Task, no_explanation, writes_nothing

if TYPE_CHECKING:
    import torch

_SKIPPED = -100


@dataclass(frozen=True)
class Recordings:
    """Heard when their batch is made. `lengths` are of what is written, and seconds where nothing is."""

    processor: Any
    inputs: Texts
    targets: Ragged | None

    @property
    def lengths(self) -> NDArray[np.int64]:
        # The longer a file the more is in it: base64 grows with the bytes.
        return self.inputs.lengths

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`input_values` or `input_features` and their mask and, to learn from, `labels`, (rows, longest)."""
        from jobs.training import batches

        heard, extractor = [audio.heard(self.inputs[i]) for i in rows], self.processor.feature_extractor
        # Whisper's hears stretches of one length, whatever was recorded.
        padding = "max_length" if hasattr(extractor, "chunk_length") else "longest"
        made = extractor(
            heard, sampling_rate=audio.RATE, return_tensors="pt", padding=padding, return_attention_mask=True
        )
        given = dict(made)
        if self.targets is None:
            return given
        labels, _ = batches.padded([self.targets[i] for i in rows], _SKIPPED)
        return given | {"labels": labels}


class SpeechRecognition:
    inputs, targets = audio, text
    head: tuple[str, ...] = ("lm_head",)
    write = writes_nothing
    explain = no_explanation

    def auto(self) -> Any:
        from transformers import AutoModelForCTC

        return AutoModelForCTC

    def options(self, labels: Sequence[str]) -> dict[str, Any]:
        del labels  # a text has none
        return {}

    def processor(self, folder: str | Path) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(folder))

    def encode(
        self,
        processor: Any,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        labels: Sequence[str],
        bounds: Bounds,
    ) -> Encoded:
        """A target's tokens are cut to `bounds.answer`; a recording is heard whole."""
        del labels
        ids = None if targets is None else [processor.tokenizer(t)["input_ids"][: bounds.answer] for t in targets]
        return Recordings(processor, Texts.of(inputs), None if ids is None else Ragged.of(ids))

    def losses(self, net: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The CTC loss a piece of the target, and the share of targets whose likeliest pieces are all right."""
        import torch

        wanted = batch["labels"]
        given = {name: part for name, part in batch.items() if name != "labels"}
        logits = net(**given).logits.float()
        if logits.is_meta:  # where a model is only measured, and torch has no such loss
            return logits.mean((1, 2)), logits.new_zeros(len(logits))
        blank = _config(net).pad_token_id
        heard, pieces = _heard(net, given, logits), (wanted != _SKIPPED).sum(1)
        shares = logits.log_softmax(-1).transpose(0, 1)
        flat = wanted.clamp(min=0)
        each = torch.nn.functional.ctc_loss(
            shares, flat, heard, pieces, blank=blank, reduction="none", zero_infinity=True
        )
        best = logits.detach().argmax(-1)
        right = [
            float(_collapsed(row[:length].tolist(), blank) == target[:count].tolist())
            for row, length, target, count in zip(best, heard, wanted, pieces, strict=True)
        ]
        return each / pieces.clamp(min=1), torch.tensor(right, device=logits.device)

    def answer(
        self, net: Any, processor: Any, labels: Sequence[str], batch: dict[str, torch.Tensor], bounds: Bounds
    ) -> list[Output]:
        """The likeliest piece at each moment; the confidence is that of all of them."""
        del labels, bounds
        said = net(**batch, output_hidden_states=True)
        blank = _config(net).pad_token_id
        chances, best = said.logits.float().log_softmax(-1).max(-1)
        made = []
        for row, chance, hidden, length in zip(
            best, chances, said.hidden_states[-1].float(), _heard(net, batch, said.logits), strict=True
        ):
            pieces = _collapsed(row[:length].tolist(), blank)
            # What is repeated has been put together: the tokenizer must not do so again.
            words = processor.tokenizer.decode(pieces, group_tokens=False, skip_special_tokens=True)
            sure = float(chance[:length].sum().exp())
            made.append(Output(words.strip(), sure, {}, hidden[:length].mean(0).cpu().numpy()))
        return made

    def blank(self, config: Any, rows: int, bounds: Bounds) -> dict[str, torch.Tensor]:
        """Ten seconds of nothing."""
        import torch

        del config
        labels = torch.ones((rows, bounds.answer), dtype=torch.long)
        return {"input_values": torch.zeros((rows, 10 * audio.RATE)), "labels": labels}


def _config(net: Any) -> Any:
    return getattr(net, "module", net).config


def _heard(net: Any, batch: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """How many moments of each row are no filling."""
    import torch

    mask = batch.get("attention_mask")
    if mask is None:
        return torch.full((len(logits),), logits.shape[1], device=logits.device)
    inner = getattr(net, "module", net)
    lengths: torch.Tensor = inner._get_feat_extract_output_lengths(mask.sum(1)).long()  # noqa: SLF001 - as its own loss does
    return lengths.clamp(max=logits.shape[1])


def _collapsed(pieces: Sequence[int], blank: int) -> list[int]:
    """Without repetitions, then without blanks."""
    kept = [piece for at, piece in enumerate(pieces) if at == 0 or piece != pieces[at - 1]]
    return [piece for piece in kept if piece != blank]


TASK: Task = SpeechRecognition()
