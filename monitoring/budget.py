"""What retrainings cost, in device-hours: wall clock times workers, from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .journal import BEGUN, Entry

MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Cost:
    """Device-hours: `price` of the next retraining, None before one has ended; `spent` in the last 30 days."""

    price: float | None
    spent: float


def cost(retrains: Sequence[Entry], now: datetime, workers: int) -> Cost:
    """Of the journal's retrainings; one that runs counts up to `now`. The next takes as long as the last that ended."""
    runs = list(_runs(retrains, now))
    ended = [end - start for start, end, _, over in runs if over]
    since = now - MONTH
    spent = sum(_hours(end - max(start, since)) * used for start, end, used, _ in runs if end > since)
    return Cost(_hours(ended[-1]) * workers if ended else None, spent)


def _runs(retrains: Sequence[Entry], now: datetime) -> Iterator[tuple[datetime, datetime, int, bool]]:
    """(begin, end, workers, whether it has ended) of each, in the order in which they ended."""
    ends = {entry.key: entry.at for entry in retrains if entry.state != BEGUN}
    begun = sorted((e for e in retrains if e.state == BEGUN), key=lambda e: ends.get(e.key, now))
    for entry in begun:
        yield entry.at, ends.get(entry.key, now), entry.body["workers"], entry.key in ends


def _hours(length: timedelta) -> float:
    return length / timedelta(hours=1)
