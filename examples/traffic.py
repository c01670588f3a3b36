"""Users, as the demo plays them: texts in over HTTP, true labels later, and an account of every answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.errors import RehoneError
from serve.client import Client

CLIENTS = 4


@dataclass(frozen=True)
class Row:
    text: str
    label: str


@dataclass(frozen=True)
class Sent:
    """One request of one text. `predicted` is None when it failed."""

    phase: str
    label: str
    prediction_id: str | None
    predicted: str | None
    version: int | None

    @property
    def right(self) -> bool:
        return self.predicted == self.label


class Traffic:
    def __init__(self, client: Client) -> None:
        self.sent: list[Sent] = []
        self.phase = ""
        self.errors: list[str] = []
        self._client = client
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._random = random.Random(1)  # noqa: S311 - who gets labelled, not a secret
        self._labelled: set[str] = set()

    def send(self, phase: str, rows: Sequence[Row]) -> list[Sent]:
        """One request a row, from several clients at once; in the order of `rows`."""
        self.phase, before = phase, len(self.sent)
        for sent in self._pool.map(lambda row: self._one(phase, row), rows):
            self.sent.append(sent)
        return self.sent[before:]

    def give_labels(self, phase: str, share: float, delay: int) -> None:
        """True labels of a `share` of the phase's answers, but not of the last `delay`."""
        ready = [s for s in self._of(phase)[:-delay] if s.prediction_id and s.prediction_id not in self._labelled]
        self._labelled |= {s.prediction_id for s in ready if s.prediction_id}
        chosen = {s.prediction_id: s.label for s in ready if s.prediction_id and self._random.random() < share}
        if chosen:
            self._client.feedback(chosen)

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(s.phase for s in self.sent))

    @property
    def acknowledged(self) -> list[str]:
        return [s.prediction_id for s in self.sent if s.prediction_id]

    def count(self, phase: str) -> int:
        return len(self._of(phase))

    def failed(self, phase: str) -> int:
        return sum(s.predicted is None for s in self._of(phase))

    def accuracy(self, phase: str) -> float:
        answered = [s for s in self._of(phase) if s.predicted is not None]
        return sum(s.right for s in answered) / len(answered)

    def _of(self, phase: str) -> list[Sent]:
        return [s for s in self.sent if s.phase == phase]

    def _one(self, phase: str, row: Row) -> Sent:
        try:
            answer = self._client.predict([row.text])
        except RehoneError as error:
            self.errors.append(str(error))  # counted and shown; the demo fails on it at its end
            return Sent(phase, row.label, None, None, None)
        made = answer["predictions"][0]
        return Sent(phase, row.label, made["prediction_id"], made["label"], answer["version"])
