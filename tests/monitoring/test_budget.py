from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitoring.budget import MONTH, Cost, cost
from monitoring.journal import BEGUN, DONE, FAILED, RETRAIN, Entry

NOW = datetime(2026, 3, 31, tzinfo=UTC)


def entry(key: str, state: str, hours_ago: float, workers: int = 2) -> Entry:
    body = {"submission_id": key, "workers": workers}
    return Entry(f"{key}/{state}", NOW - timedelta(hours=hours_ago), "m", RETRAIN, state, key, body)


def test_nothing_has_a_price_before_one_has_ended():
    assert cost([], NOW, 2) == Cost(None, 0.0)
    assert cost([entry("a", BEGUN, 0.5)], NOW, 2) == Cost(None, pytest.approx(1.0))


def test_a_retraining_costs_its_time_on_all_workers_also_one_that_failed():
    run = [entry("a", BEGUN, 10, 4), entry("a", DONE, 9.5, 4), entry("b", BEGUN, 3), entry("b", FAILED, 2)]
    assert cost(run, NOW, 8) == Cost(pytest.approx(8.0), pytest.approx(0.5 * 4 + 1 * 2))


def test_only_the_last_30_days_count():
    month = MONTH / timedelta(hours=1)
    run = [entry("a", BEGUN, month + 9), entry("a", DONE, month + 8), entry("b", BEGUN, month + 1)]
    run.append(entry("b", DONE, month - 2))
    assert cost(run, NOW, 2) == Cost(pytest.approx(3 * 2), pytest.approx(2 * 2))
