"""Kills under HTTP load on Ray Serve: what clients see of each, and whether the log has every acknowledged answer once.

    python -m bench.kills                    # fifty kills, about ten minutes
    python -m bench.kills --kills 10 --replicas 1

The victim is drawn: a replica, HAProxy, Ray's actor that manages it, Serve's controller, or all of them at once. Four
clients ask once by plain HTTP; four are `serve.client`, which asks again for a while. The model is a fake: what is
measured is the way of an answer into the log, and for how long nobody answers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from cluster.session import connect
from cluster.settings import Settings
from cluster.store.registry import Registry
from cluster.store.storage import Storage
from jobs.show import table
from jobs.spec import Spec
from serve import rollout
from serve.log.predictions import prediction_log, tables
from serve.log.spool import adopt
from tests.serve import fakes
from tests.serve.load import MODEL, VICTIMS, Load, kill, register

Seen = dict[str, list[tuple[int, int, float]]]
"""By victim, of each kill: plain requests that failed, those of `serve.client`, the longest wait of one in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(storage=f"{folder}/store")
        serving = {"replicas": chosen.replicas, "port": 0, "flush_seconds": 0.5}
        data = {"source": "none.csv"}
        spec = Spec.model_validate({"name": MODEL, "base_model": "none", "data": data, "serving": serving})
        with connect(settings, num_cpus=8):
            register(settings, Path(folder) / "1", 0.6)
            Registry(settings).promote(MODEL, 1)
            url = rollout.start(spec, settings, load=fakes.load)
            plain, patient = Load(url), Load(url, patient=True)
            seen = killed(plain, patient, chosen.kills, random.Random(chosen.seed))  # noqa: S311 - no secret
            rollout.stop()
        storage = Storage.from_settings(settings)
        orphans = adopt(settings.spool_root, tables(storage))
        logged = Counter(prediction_log(storage).read(columns=["prediction_id"])["prediction_id"].to_pylist())
    acknowledged = plain.ids + patient.ids
    rows = [
        [
            victim,
            len(all_),
            sum(failed for failed, _, _ in all_),
            sum(failed for _, failed, _ in all_),
            f"{statistics.median(wait for _, _, wait in all_):.1f}",
            f"{max(wait for _, _, wait in all_):.1f}",
        ]
        for victim, all_ in seen.items()
    ]
    head = ["killed", "times", "plain requests failed", "of serve.client", "longest wait, median, s", "worst, s"]
    print(table(f"{chosen.kills} kills, {chosen.replicas} replicas, 8 clients", head, rows))
    kept = {
        "acknowledged": len(acknowledged),
        "in the log": len(logged),
        "missing": len(set(acknowledged) - set(logged)),
        "twice": sum(times > 1 for times in logged.values()),
        "left in spools at the end": orphans,
    }
    print(json.dumps(kept))


def killed(plain: Load, patient: Load, kills: int, draw: random.Random) -> Seen:
    seen: Seen = defaultdict(list)
    with plain, patient:
        patient.more(50)
        for _ in range(kills):
            victim = draw.choice(list(VICTIMS))
            time.sleep(draw.uniform(0.0, 1.0))
            before, patient.slowest = (len(plain.failures), len(patient.failures)), 0.0
            kill(victim, draw)
            # Long enough that every client has been answered again.
            patient.more(100, seconds=180)
            plain.more(100, seconds=180)
            failed = len(plain.failures) - before[0], len(patient.failures) - before[1]
            seen[victim].append((*failed, patient.slowest))
    return seen


if __name__ == "__main__":
    main()
