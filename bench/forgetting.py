"""How much a model of tweets forgets when it learns movie reviews, and what holds it.

    python bench/forgetting.py --seeds 3

Ours: MiniLM with LoRA through the project's own training loop, one process, a fixed number of epochs; the champion
learns tweets, each row below goes on from it. Beside it, on the same rows: the encoder frozen, logistic regression on
its embeddings. Accuracy on tweets and movies held out by document. Figures are the mean over seeds (rows, batches and
weights are drawn anew) with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from spread import spread

from cluster.console import say
from cluster.session import prepare_environment
from cluster.store.storage import Storage
from examples import sentiment_data
from jobs import show, specfile, tasks, tune
from jobs.forgetting.ewc import Consolidation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import Spec
from jobs.training import loop, tokens
from jobs.training.loop import Work

LABELS = ("negative", "positive")
TASK = tasks.get("text-classification")
SPEC = Path(__file__).resolve().parents[1] / "examples" / "sentiment.yaml"
TEST_ROWS = 500
Accuracy = tuple[float, float]
"""On tweets, on movies."""


@dataclass(frozen=True)
class Domain:
    train: pd.DataFrame
    test: pd.DataFrame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tweets", type=int, default=1200, help="training rows")
    parser.add_argument("--movies", type=int, default=600, help="training rows")
    parser.add_argument("--cpus", type=int, default=2, help="torch threads")
    parser.add_argument("--ewc-lambda", type=float, nargs="+", default=[None])
    chosen = parser.parse_args()
    prepare_environment()
    found: list[Mapping[str, Accuracy]] = []
    with tune.alone(), tempfile.TemporaryDirectory() as folder:
        for seed in range(chosen.seeds):
            sizes = {"tweets": chosen.tweets, "movies": chosen.movies}
            tweets, movies = (domain(name, rows, seed) for name, rows in sizes.items())
            spec = specfile.load(SPEC).with_values(
                {"scaling.workers": 1, "scaling.cpus_per_worker": chosen.cpus, "training.seed": seed}
            )
            found.append(
                frozen(spec, tweets, movies) | ours(spec, tweets, movies, Path(folder) / str(seed), chosen.ewc_lambda)
            )
            say(f"seed {seed}: {found[-1]}")
    print(table(found))


def domain(name: str, rows: int, seed: int) -> Domain:
    """Test rows are of documents that no training row is of."""
    frame = pd.DataFrame(sentiment_data.read(sentiment_data.fetch()[name])).rename(columns={"text": "input"})
    documents = np.random.default_rng(seed).permutation(frame["document"].unique())
    cut = set(documents[: max(1, round(0.3 * len(documents)))])
    held = frame["document"].isin(cut)
    train = frame[~held].sample(min(rows, int((~held).sum())), random_state=seed)
    return Domain(train, frame[held].sample(min(TEST_ROWS, int(held.sum())), random_state=seed))


def frozen(spec: Spec, tweets: Domain, movies: Domain) -> dict[str, Accuracy]:
    """The encoder as it is, with a logistic regression on its embeddings."""
    made = predictor(spec, model.base(TASK, spec.base_model, LABELS, 0))
    vectors = {id(f): embed(made, f) for d in (tweets, movies) for f in (d.train, d.test)}

    def trained(*frames: pd.DataFrame) -> Accuracy:
        fitted = LogisticRegression(max_iter=2000).fit(
            np.concatenate([vectors[id(f)] for f in frames]), np.concatenate([f["label"] for f in frames])
        )
        scores = (fitted.score(vectors[id(d.test)], d.test["label"]) for d in (tweets, movies))
        return tuple(map(float, scores))  # type: ignore[return-value]

    return {
        "frozen: tweets": trained(tweets.train),
        "frozen: then movies, no replay": trained(movies.train),
        "frozen: then movies, replay": trained(tweets.train, movies.train),
    }


def ours(
    spec: Spec, tweets: Domain, movies: Domain, folder: Path, strengths: Sequence[float | None]
) -> dict[str, Accuracy]:
    """The champion of tweets, and what each recipe makes of it."""
    champion = train(spec, tweets.train, tweets, folder / "champion", None, None)
    again = spec.with_values(
        {
            "training.learning_rate": spec.training.learning_rate * spec.retrain.rate,
            "training.epochs": spec.retrain.epochs,
        }
    )
    drawn = tweets.train.sample(spec.retrain.ewc_rows, random_state=spec.training.seed)
    (old,) = tokens.kept(Storage(str(folder)), {"rows/old.parquet": drawn}, spec, LABELS)
    both = pd.concat([tweets.train, movies.train])
    made = {"ours: tweets": accuracy(spec, champion, tweets, movies)}

    def arm(name: str, rows: pd.DataFrame, held: Consolidation | None) -> None:
        out = train(again, rows, movies, folder / "arm", champion, held)
        made[name] = accuracy(spec, out, tweets, movies)
        say(f"{name}: {made[name]}")
        shutil.rmtree(out)

    arm("ours: then movies, no replay", movies.train, None)
    for strength in strengths:
        held = Consolidation(strength or spec.retrain.ewc_lambda, old)
        arm(f"ours: then movies, ewc {held.strength:g}", movies.train, held)
    arm("ours: then movies, replay", both, None)
    arm("ours: then movies, replay + ewc", both, Consolidation(spec.retrain.ewc_lambda, old))
    return made


def train(
    spec: Spec, rows: pd.DataFrame, validation: Domain, folder: Path, start: Path | None, held: Consolidation | None
) -> Path:
    """The folder of the model after the last epoch; which checkpoint is best is not asked."""

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        say(f"  step {metrics['step']}/{metrics['total_steps']} loss {metrics['train_loss']:.3f}")
        if metrics["step"] == metrics["total_steps"] and checkpoint is not None:
            shutil.copytree(checkpoint, folder)

    patient = spec.with_values({"training.patience": 10**6, "training.evaluations_per_epoch": 1})
    parts = {"rows/train.parquet": rows, "rows/validation.parquet": validation.train.head(32)}
    kept = tokens.kept(Storage(str(folder.parent)), parts, spec, LABELS)
    job = Work(patient, LABELS, *kept, zero_stage=0, epochs=spec.training.epochs)
    started = replace(job, start=str(start) if start else None, consolidation=held)
    loop.run(started, rank=0, world=1, threads=spec.scaling.cpus_per_worker, report=report)
    return folder


def accuracy(spec: Spec, folder: Path, *domains: Domain) -> Accuracy:
    made = predictor(spec, model.load(folder, TASK, spec.base_model, LABELS, merge=True))
    scores = (
        np.mean([o.label == label for o, label in zip(made(list(d.test["input"])), d.test["label"], strict=True)])
        for d in domains
    )
    return tuple(map(float, scores))  # type: ignore[return-value]


def predictor(spec: Spec, net: Any) -> Predictor:
    return Predictor(net, TASK, TASK.processor(model.locate(spec.base_model)), LABELS, spec.bounds)


def embed(made: Predictor, frame: pd.DataFrame) -> Any:
    return np.stack([output.embedding for output in made(list(frame["input"]))])


def table(found: Sequence[Mapping[str, Accuracy]]) -> str:
    """One line a recipe; `forgot` is what tweets lost against the champion of the same kind and seed."""
    rows = []
    for name in found[0]:
        first = f"{name.split(':')[0]}: tweets"
        numbers = [[one[name][0] for one in found], [one[name][1] for one in found]]
        numbers.append([one[first][0] - one[name][0] for one in found])
        rows.append([name, *(spread(values, "{:.3f}", statistics.mean) for values in numbers)])
    title = f"accuracy over {len(found)} seed(s), mean [lowest, highest]"
    return show.table(title, ["", "tweets", "movies", "tweets forgot"], rows)


if __name__ == "__main__":
    main()
