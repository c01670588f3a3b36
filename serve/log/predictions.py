"""The prediction log, the feedback and the observations: what a row is, and the Delta tables they are kept in.

The log has every answer that was sent. Observations are made while a canary is on trial, of it and of the champion,
also of what nobody was sent: a shadow's answers, and faults. They are no rows of the log, where whoever reads it would
take them for production's.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from secrets import token_hex
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.store.storage import Storage
from cluster.store.tables import Table

_ID = re.compile(r"(?P<model>[a-z0-9][a-z0-9-]*)\.(?P<version>[1-9][0-9]*)\.[0-9a-f]{22}")
_AT = pa.field("at", pa.timestamp("us", tz="UTC"))
_PREDICTIONS = pa.schema(
    [
        ("prediction_id", pa.string()),
        _AT,
        ("day", pa.string()),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("input", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("scores", pa.string()),
        ("embedding", pa.list_(pa.float32())),
    ]
)
_FEEDBACK = pa.schema(
    [("prediction_id", pa.string()), _AT, ("day", pa.string()), ("model", pa.string()), ("label", pa.string())]
)
_OBSERVATIONS = pa.schema(
    [
        ("prediction_id", pa.string()),
        _AT,
        ("day", pa.string()),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("fault", pa.string()),
        ("batch", pa.string()),
        ("batch_rows", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
_DROPPED = 13  # of the 23 bits of a float32's mantissa
PREDICTIONS, FEEDBACK, OBSERVATIONS = "predictions", "feedback", "observations"


def new_id(model: str, version: int) -> str:
    """An id that says which model and version answered; those of one version sort by time (µs, then chance)."""
    return f"{model}.{version}.{time.time_ns() // 1000:014x}{token_hex(4)}"


def parse_id(text: str) -> tuple[str, int]:
    """(model, version) of a prediction id. Raises UserError."""
    found = _ID.fullmatch(text)
    if found is None:
        raise UserError(f"{text[:80]!r} is no prediction id", mend="send one that /predict has answered with")
    return found["model"], int(found["version"])


@dataclass(frozen=True)
class Prediction:
    """One answer. `embedding` has shape (hidden,)."""

    prediction_id: str
    at: datetime
    model: str
    version: int
    input: str
    label: str
    confidence: float
    scores: dict[str, float]
    embedding: NDArray[np.float32]

    table = PREDICTIONS

    def to_record(self) -> dict[str, Any]:
        """As a spool's JSON line holds it; the embedding as base64 of little-endian float32."""
        raw = base64.b64encode(self.embedding.astype("<f4").tobytes()).decode()
        return {**vars(self), "at": self.at.isoformat(), "embedding": raw}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        embedding = np.frombuffer(base64.b64decode(record["embedding"]), dtype="<f4")
        return cls(**{**record, "at": datetime.fromisoformat(record["at"]), "embedding": embedding})

    def to_row(self) -> dict[str, Any]:
        scores, embedding = json.dumps(self.scores), _rounded(self.embedding)
        return {**vars(self), "day": _day(self.at), "scores": scores, "embedding": embedding}


@dataclass(frozen=True)
class Feedback:
    """The true label of one prediction, as it came in."""

    prediction_id: str
    at: datetime
    model: str
    label: str

    table = FEEDBACK

    def to_record(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(**{**record, "at": datetime.fromisoformat(record["at"])})

    def to_row(self) -> dict[str, Any]:
        return {**vars(self), "day": _day(self.at)}


class Kind(StrEnum):
    """Of an observation: an answer that was sent, one that nobody saw, a version that could not be loaded."""

    answer = "answer"
    shadow = "shadow"
    load = "load"


@dataclass(frozen=True)
class Observation:
    """What one version made of one input during a trial: a label or a fault.

    `prediction_id` is the answer's that was sent, a shadow's too; of a fault an id of its own. `key` is a hash of what
    requests are routed by, of the input where the client sent none. `batch` and `batch_rows` name the batch that it was
    answered in, which took the engine `seconds`. A fault has no time, nor has a text that OpenAI's routes asked for. An
    engine that answers many at a time has no batches: there they are a request, and all rows that it was answered with.
    """

    prediction_id: str
    at: datetime
    model: str
    version: int
    kind: Kind
    key: str
    label: str | None
    fault: str | None
    batch: str
    batch_rows: int
    seconds: float | None

    table = OBSERVATIONS

    def to_record(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(**{**record, "at": datetime.fromisoformat(record["at"]), "kind": Kind(record["kind"])})

    def to_row(self) -> dict[str, Any]:
        return {**vars(self), "day": _day(self.at), "kind": self.kind.value}


Record = Prediction | Feedback | Observation
KINDS: dict[str, type[Record]] = {PREDICTIONS: Prediction, FEEDBACK: Feedback, OBSERVATIONS: Observation}


def prediction_log(storage: Storage) -> Table:
    return Table(storage, PREDICTIONS, _PREDICTIONS, partition_by=["model", "day"])


def feedback_log(storage: Storage) -> Table:
    return Table(storage, FEEDBACK, _FEEDBACK, partition_by=["model", "day"])


def observations(storage: Storage) -> Table:
    return Table(storage, OBSERVATIONS, _OBSERVATIONS, partition_by=["model", "day"])


def tables(storage: Storage) -> dict[str, Table]:
    """By the name that a spool's records have."""
    return {PREDICTIONS: prediction_log(storage), FEEDBACK: feedback_log(storage), OBSERVATIONS: observations(storage)}


def utc_now() -> datetime:
    return datetime.now(UTC)


def _rounded(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """To 10 bits of mantissa, half to even, as TF32 has them: values that repeat take Parquet 2.5 times less room.

    Float16 would have as many, but overflows and underflows where float32 does not.
    """
    bits = np.ascontiguousarray(embedding, dtype="<f4").view("<u4")
    rounded = (bits + 0xFFF + (bits >> _DROPPED & 1)) >> _DROPPED << _DROPPED
    return np.where(np.isfinite(embedding), rounded.view("<f4"), embedding)


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
