"""What a request does, without HTTP: answer, write down, take labels back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cluster.errors import NotFoundError, RehoneError, UserError
from jobs.predictor import Output

from .engine import Engine
from .predictions import Feedback, Prediction, new_id, parse_id, utc_now
from .spool import Spool


class NotReadyError(RehoneError):
    """No version is loaded yet."""


@dataclass(frozen=True)
class Answered:
    """All outputs of one request, from one engine."""

    engine: Engine
    outputs: list[Output]


Answer = Callable[[Sequence[str]], Awaitable[Answered]]


class Service:
    """`engine` gives the engine that serves now, or None; `answer` sends texts through it, batched with others'."""

    def __init__(self, model: str, spool: Spool, engine: Callable[[], Engine | None], answer: Answer) -> None:
        self.model = model
        self._spool, self._engine, self._answer = spool, engine, answer

    def engine(self) -> Engine:
        """Raises NotReadyError."""
        engine = self._engine()
        if engine is None:
            raise NotReadyError("no version of this model is loaded yet", where=self.model, mend="try again shortly")
        return engine

    async def predict(self, model: str, texts: Sequence[str]) -> list[Prediction]:
        """One Prediction a text, each in the spool by then. Raises NotFoundError, NotReadyError, OSError."""
        self._require(model)
        self.engine()
        answered = await self._answer(texts)
        version, now = answered.engine.version.version, utc_now()
        made = [
            Prediction(new_id(model, version), now, model, version, text, o.label, o.confidence, o.scores, o.embedding)
            for text, o in zip(texts, answered.outputs, strict=True)
        ]
        self._spool.append(made)
        return made

    def feedback(self, labels: Sequence[tuple[str, str]]) -> int:
        """Take (prediction id, true label) pairs, all or none. Raises UserError, NotReadyError, OSError."""
        known, now = self.engine().labels, utc_now()
        rows = []
        for prediction_id, label in labels:
            model, _ = parse_id(prediction_id)
            self._require(model)
            if label not in known:
                raise UserError(f"{label[:80]!r} is no label of {model}", mend=f"labels are {', '.join(known)}")
            rows.append(Feedback(prediction_id, now, model, label))
        self._spool.append(rows)
        return len(rows)

    def _require(self, model: str) -> None:
        if model != self.model:
            raise NotFoundError(f"no model {model[:80]!r} is served here", mend=f"this is {self.model!r}")
