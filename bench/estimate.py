"""How near the estimated accuracy comes to the true one, beside its peers, on four domains of real texts.

    python bench/estimate.py [STORAGE ROOT]

The storage root of a finished `make demo` (default: .rehone/demo/store) has the models: version 1, trained on tweets,
and the one retrained when movie reviews came. Each row: 20 windows of 250 drawn texts of one domain, their mean
accuracy, what each estimate says and how far it is off on average (points), and in how many windows the interval of
ours lies wholly more than 5 points below the reference. Peers: the mean confidence, and ATC (Garg et al. 2022), the
share of confidences above the threshold that a share of the reference equal to its accuracy exceeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cluster.settings import Settings
from examples import sentiment_data
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.show import table
from jobs.spec import MonitoringSpec
from monitoring.drift import estimate

SPEC = MonitoringSpec()
WINDOWS, MOST = 20, 1500


def answered(predictor: Predictor, rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, right) of the texts."""
    outputs = predictor([row["text"] for row in rows])
    right = [output.label == row["label"] for output, row in zip(outputs, rows, strict=True)]
    return np.array([output.confidence for output in outputs]), np.array(right)


def main(root: str) -> None:
    registry = Place.from_settings(Settings(storage=root)).registry
    for version in registry.versions("sentiment"):
        print(of(registry.download(version), f"version {version.version}"), end="\n\n")


def of(folder: Path, name: str) -> str:
    """The table of a version whose files are in `folder`."""
    reference = pd.read_parquet(folder / "reference.parquet")
    known, right = reference["confidence"].to_numpy(float), (reference["true"] == reference["label"]).to_numpy()
    bound, threshold = right.mean() - SPEC.accuracy_drop, np.quantile(known, 1 - right.mean())
    predictor, draw, lines = Predictor.load(folder), np.random.default_rng(0), []
    for domain in sentiment_data.DOMAINS:
        rows = sentiment_data.read(sentiment_data.FOLDER / f"{domain}.csv")
        chosen = [rows[i] for i in draw.permutation(len(rows))[:MOST]]
        confidence, true = answered(predictor, chosen)
        found = []
        for _ in range(WINDOWS):
            at = draw.permutation(len(chosen))[: SPEC.window]
            ours = estimate.accuracy(known, right, confidence[at], SPEC.false_alarm_rate)
            found.append(
                (
                    true[at].mean(),
                    ours.accuracy,
                    confidence[at].mean(),
                    (confidence[at] >= threshold).mean(),
                    ours.high < bound,
                )
            )
        truth, *said, rung = np.array(found, float).T
        told = (f"{part.mean():.3f} ({100 * np.abs(part - truth).mean():.1f})" for part in said)
        lines.append([domain, f"{truth.mean():.3f}", *told, f"{rung.sum():.0f}/{WINDOWS}"])
    head = ["domain", "accuracy", "ours (off by)", "mean confidence", "ATC", "alarms"]
    return table(f"{name}, reference: {right.mean():.3f} on {len(right)} rows", head, lines)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(".rehone/demo/store").resolve()))
