"""Writes down what a version did while one is on trial: `Observation`s, as the judge reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_hex

from serve.engines.engine import Answered, Engine
from serve.log.predictions import Kind, Observation, Prediction, Record, new_id, utc_now

from .dealing import hashed


class Observer:
    """Of one model. `write` keeps records; it may raise OSError."""

    def __init__(self, model: str, write: Callable[[Sequence[Record]], None]) -> None:
        self.model, self.write = model, write

    def answers(self, made: Sequence[Prediction], answered: Answered, key: str | None, kind: Kind) -> list[Observation]:
        return [
            Observation(
                prediction_id=one.prediction_id,
                at=one.at,
                model=self.model,
                version=one.version,
                kind=kind,
                key=hashed(one.input if key is None else key),
                label=one.label,
                fault=None,
                batch=answered.batch,
                batch_rows=answered.batch_rows,
                seconds=answered.seconds,
            )
            for one in made
        ]

    def fault(self, engine: Engine | None, texts: Sequence[str], key: str | None, kind: Kind, error: Exception) -> None:
        """Nothing without an engine: its trial ended while the request was on its way."""
        if engine is None:
            return
        # Of all requests of one batch each fails with the same exception: they are one fault.
        batch = str(vars(error).setdefault("batch", token_hex(8)))
        said = f"{type(error).__name__}: {error}"[:200]
        keys = [text if key is None else key for text in texts]
        self.write([self._failed(engine.version.version, one, kind, said, batch, len(texts)) for one in keys])

    def refused(self, version: int, reason: str) -> None:
        """A version could not be loaded."""
        self.write([self._failed(version, "", Kind.load, reason, "", 0)])

    def _failed(self, version: int, key: str, kind: Kind, fault: str, batch: str, rows: int) -> Observation:
        """Of what did not come to an answer, under an id of its own."""
        return Observation(
            prediction_id=new_id(self.model, version),
            at=utc_now(),
            model=self.model,
            version=version,
            kind=kind,
            key=hashed(key),
            label=None,
            fault=fault,
            batch=batch,
            batch_rows=rows,
            seconds=None,
        )
