from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from monitoring.judges.regression import Regression, judge

RATE, LOSS = 0.05, 0.02


def rows(right: np.ndarray) -> pd.DataFrame:
    """`right`, (n, 2): whether champion and the version before it are right."""
    answers = np.where(right, "pos", "neg")
    return pd.DataFrame({"true": "pos", "champion": answers[:, 0], "previous": answers[:, 1]})


def drawn(count: int, champion: float, before: float, seed: int) -> pd.DataFrame:
    return rows(np.random.default_rng(seed).random((count, 2)) < [champion, before])


def test_a_loss_that_is_no_chance_is_worse():
    found = judge(drawn(300, 0.7, 0.9, 0), 1, None, false_alarm_rate=RATE, max_loss=LOSS)
    assert found.worse
    assert (found.previous, found.look, found.rows, found.level) == (1, 1, 300, RATE / 2)
    assert found.before - found.champion == pytest.approx(0.2, abs=0.06)
    assert Regression.from_dict(json.loads(json.dumps(asdict(found)))) == found


def test_a_loss_that_is_allowed_is_not():
    right = np.ones((3000, 2), bool)
    right[:50, 0] = False  # 1.7 points, and no chance
    found = judge(rows(right), 1, None, false_alarm_rate=RATE, max_loss=LOSS)
    assert (found.worse, found.p_value < 1e-9) == (False, True)


def test_a_version_that_is_as_good_is_seldom_rolled_back_however_often_one_looks():
    """200 versions, looked at 10 times each while their rows grow: 5% may ring, more than 18 have a chance of 0.5%."""
    rung = 0
    for seed in range(200):
        whole, last = drawn(500, 0.85, 0.85, seed), None
        for upto in range(50, 501, 50):
            last = judge(whole.head(upto), 1, last, false_alarm_rate=RATE, max_loss=0.0)
            if last.worse:
                rung += 1
                break
    assert rung <= 18


def test_levels_add_up_to_the_rate():
    levels, last = [], None
    for _ in range(200):
        last = judge(drawn(30, 0.9, 0.9, 0), 1, last, false_alarm_rate=RATE, max_loss=LOSS)
        levels.append(last.level)
    assert 0.99 * RATE < sum(levels) < RATE
