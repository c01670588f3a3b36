from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from jobs.evaluation import show
from jobs.evaluation.calibration import calibration
from jobs.evaluation.evaluate import Evaluation
from jobs.evaluation.footprint import Footprint, Latency
from jobs.evaluation.robustness import Robustness
from jobs.evaluation.scorecard import score
from jobs.evaluation.slices import BY, gaps, slices
from tests.jobs.test_show import body


def test_a_scorecard_shows_intervals_and_the_confusion() -> None:
    card = score(["a", "a", "b"], ["a", "b", "b"], ["a", "b"], resamples=20)
    text = show.scorecards({"old": card})
    assert "test rows, old: 3" in text
    assert ["a", "1.000", "0.500", "0.667", "2", "1", "1"] in body(text)
    accuracy = card.metrics["accuracy"]
    assert f"accuracy 0.667 [{accuracy.low:.3f}, {accuracy.high:.3f}]" in text


def test_an_evaluation_shows_the_worst_slice_first_and_every_part() -> None:
    rows = pd.DataFrame({"true": "a", "label": ["a"] * 30 + ["a", "b"] * 15, f"{BY}country": ["de"] * 30 + ["fr"] * 30})
    found = slices(rows, ["a", "b"], 30)
    card = dataclasses.replace(
        score(list(rows["true"]), list(rows["label"]), ["a", "b"], resamples=20),
        calibration=calibration(np.full(60, 0.75), (rows["label"] == "a").to_numpy()),
        slices=found,
        gaps=gaps(found),
    )
    costs = Footprint((Latency(1, 2.0, 3.0), Latency(32, 20.0, 30.0)), 90_000_000, 300_000)
    text = show.evaluation(Evaluation({"old": card}, (Robustness("typos", 60, 58, 0.75, 0.7, 0.1),), costs))
    worst, best = (line for line in text.splitlines() if line.startswith(" country ") and "[" in line)
    assert worst.split()[:4] == ["country", "fr", "30", "0.500"]
    assert worst.endswith("-25.0")
    assert best.split()[:4] == ["country", "de", "30", "1.000"]
    assert "fr < de" in text
    assert "calibration error" in text
    assert "0.750 -> 0.700   10.0%" in text
    assert text.endswith(
        "latency here: 2.0 ms for 1 (p95 3.0), 20.0 ms for 32 (p95 30.0); weights 90.0 MB in memory, files 0.3 MB"
    )
