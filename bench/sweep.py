"""What halving and ASHA save: a grid of 12 points trained to the end, beside the same points under each.

    python -m examples.sentiment_data && python bench/sweep.py

MiniLM with LoRA on tweets, learning rate x rank, through the project's own sweep. Compute is counted in optimizer
steps, since seconds are the machine's. Which points a scheduler sees first is chance, so beside the one real run both
are replayed over the grid's own learning curves in many other orders, ASHA one trial at a time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from cluster.console import say
from cluster.session import connect
from cluster.settings import Settings
from jobs import pipeline, show, specfile, tune
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep import rungs
from jobs.sweep.record import Trial

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SEARCH = {
    "training.learning_rate": {"choice": [2e-4, 5e-4, 1e-3, 2.5e-3]},
    "method.rank": {"choice": [2, 8, 32]},
}


Replay = Callable[[Spec, Sequence[Trial]], list[Trial]]


@dataclass(frozen=True)
class Outcome:
    loss: float
    steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="training rows")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16, help="rows a step: small, so that few rows make many steps")
    parser.add_argument("--reduction-factor", type=int, default=3)
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--orders", type=int, default=500, help="orders to replay them in")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place.from_settings(Settings(storage=f"{folder}/store"))
        grid = spec(chosen, Path(folder))
        others = {name: grid.with_values({"sweep.scheduler": name}) for name in REPLAYS}
        with connect(place.settings, num_cpus=chosen.concurrent + 1):
            dataset = pipeline.prepare(grid, place)
            found = {}
            for name, made in {"grid": grid, **others}.items():
                began = time.monotonic()
                _, found[name] = pipeline.tune_spec(made, dataset, place)
                say(f"{name}: {time.monotonic() - began:.0f} s\n{show.sweep(found[name])}")
    trials = found["grid"].trials
    replayed = {name: replays(made, trials, chosen.orders) for name, made in others.items()}
    print(table({name: outcome(swept.trials) for name, swept in found.items()}, replayed))


def spec(chosen: argparse.Namespace, folder: Path) -> Spec:
    """Half of the rows train, the other half validates and tests; every point to its end."""
    rows = pd.read_csv(EXAMPLES / "data" / "train.csv").sample(2 * chosen.rows, random_state=0)
    rows.to_csv(folder / "rows.csv", index=False)
    return specfile.load(EXAMPLES / "sentiment.yaml").with_values(
        {
            "data.source": str(folder / "rows.csv"),
            "data.split": {"by": "stratified", "train": 0.5, "validation": 0.4, "test": 0.1},
            "training.evaluations_per_epoch": 1,
            "training.global_batch_size": chosen.batch,
            "training.micro_batch_size": chosen.batch,
            "scaling.workers": 1,
            "sweep.algorithm": "grid",
            "sweep.scheduler": "none",
            "sweep.epochs": chosen.epochs,
            "sweep.reduction_factor": chosen.reduction_factor,
            "sweep.concurrent": chosen.concurrent,
            "sweep.share": 1.0,
            "sweep.search": SEARCH,
        }
    )


def outcome(trials: Sequence[Trial]) -> Outcome:
    losses = [t.validation_loss for t in trials if t.validation_loss is not None]
    return Outcome(min(losses), sum(t.steps for t in trials))


def replays(spec: Spec, grid: Sequence[Trial], orders: int) -> list[Outcome]:
    """What a scheduler would have come to, had it seen the grid's trials in other orders."""
    draw, replay = random.Random(0), REPLAYS[spec.sweep.scheduler]  # noqa: S311 - orders, not secrets
    return [outcome(replay(spec, draw.sample(grid, len(grid)))) for _ in range(orders)]


def halving(spec: Spec, trials: Sequence[Trial]) -> list[Trial]:
    ladder = rungs.ladder(spec.sweep, len(trials))
    ended = {trial.id: _cut(trial, ladder[0].epochs) for trial in trials}
    whole = {trial.id: trial for trial in trials}
    for below, rung in pairwise(ladder):
        for trial in rungs.best(ended.values(), below, rung.trials):
            ended[trial.id] = _cut(whole[trial.id], rung.epochs)
    return list(ended.values())


def asha(spec: Spec, trials: Sequence[Trial]) -> list[Trial]:
    scheduler = tune.scheduler(spec)
    return [_until_stopped(scheduler, trial) for trial in trials]


def _until_stopped(asha: object, trial: Trial) -> Trial:
    seen = SimpleNamespace(trial_id=trial.id)
    asha.on_trial_add(None, seen)  # type: ignore[attr-defined]
    for epochs, loss in trial.losses:
        result = {"epoch": epochs, tune.METRIC: loss}
        if asha.on_trial_result(None, seen, result) == "STOP":  # type: ignore[attr-defined]
            return _cut(trial, epochs)
    return trial


def _cut(trial: Trial, epochs: float) -> Trial:
    """A trial as it was after so many epochs."""
    losses = tuple(pair for pair in trial.losses if pair[0] <= epochs)
    steps = round(epochs * trial.steps / trial.epochs)
    return replace(trial, validation_loss=losses[-1][1], epochs=epochs, steps=steps, losses=losses)


REPLAYS: dict[str, Replay] = {"halving": halving, "asha": asha}


def table(found: dict[str, Outcome], replayed: dict[str, list[Outcome]]) -> str:
    grid = found["grid"]
    rows = [
        [name, f"{one.loss:.4f}", f"{one.loss - grid.loss:+.4f}", one.steps, f"{one.steps / grid.steps:.0%}"]
        for name, one in found.items()
    ]
    tails = [f"{name} {_told(grid, outcomes)}" for name, outcomes in replayed.items()]
    head = ["", "best validation loss", "above the grid", "steps", "of the grid"]
    return "\n".join([show.table("", head, rows), *tails])


def _told(grid: Outcome, replayed: Sequence[Outcome]) -> str:
    ranked = sorted(one.steps / grid.steps for one in replayed)
    low, high = (f"{ranked[int(q * (len(ranked) - 1))]:.0%}" for q in (0.05, 0.95))
    best = statistics.mean(one.loss <= grid.loss for one in replayed)
    return (
        f"in {len(replayed)} other orders, by the grid's curves: {statistics.mean(ranked):.0%} of the steps "
        f"(5% to 95%: {low} to {high}, at most {ranked[-1]:.0%}), the grid's best loss in {best:.0%}, "
        f"at most {max(one.loss for one in replayed) - grid.loss:.4f} above it"
    )


if __name__ == "__main__":
    main()
