"""What a system of many nodes asks of the parts that all of them share, from what each part costs here.

    python bench/scale.py [--postgresql URL] [--serve] [--json FILE]

First every unit cost is measured with the real code (`scale_costs.py`): appends to one Delta table by more and more
writers, reading and tidying a log of many files, a replica's question for the champion, MLflow's writes of a training,
the journal, the lease, a look at a window, a record into a spool and out of it. With `--postgresql` MLflow's are
measured on a server that runs, in an empty database; with `--serve` Ray Serve's controller with 2, 8 and 16 replicas.
Then 10, 100 and 1,000 nodes with 10,000 answers a second in all are reckoned by plain proportion: what grows with nodes
times nodes, what grows with answers times answers; a shared part is full when its busy share reaches 1. Nothing is
taken to get faster with size, and a store that is further away than this machine's disk is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from scale_costs import REPLICAS, Costs, of_mlflow, of_postgresql, of_serve, of_spools, of_tables, of_the_loop

from cluster.session import prepare_environment
from cluster.settings import Settings
from jobs.show import table
from jobs.spec import Spec

NODES, ANSWERS, DAY = (10, 100, 1000), 10_000, 86_400
LARGE = 60.0, 10.0, 25_000
"""flush_seconds, poll_seconds and monitoring.window of a large system; the spec's own are for a small one."""
SPEC = Spec.model_validate({"name": "scale", "base_model": "none", "data": {"source": "none.csv"}})


def reckon(costs: Costs, nodes: int, flush: float, poll: float, window: int) -> dict[str, float]:
    """What so many nodes ask for, and the busy share of what all of them share."""
    files = costs["files/min of a node, flush_seconds 2"] * 2 / flush * nodes
    polls = costs["polls/s of a node, poll_seconds 1"] / poll * nodes
    a_day = files * DAY / 60
    look = costs[f"window of {window} judged, s"]
    windows = min(ANSWERS / window, 1 / look)
    made = {
        "replicas": nodes * REPLICAS,
        "answers/s of a replica": ANSWERS / nodes / REPLICAS,
        "files/min of the log": files,
        "busy share of the log's table": files / 60 / costs["commits/s, 16 writers"],
        "GB/day of answers": costs["bytes of an answer in the log"] * ANSWERS * DAY / 1e9,
        "busy share of a node's flusher": ANSWERS / nodes / costs["rows/s from a spool to the log"],
        "s to find a window in a day's files": _line(costs, "next window, {} files, s", a_day),
        "s to tidy a day's files": _line(costs, "tidy, {} files, s", a_day),
        "access log lines/min": 60 * ANSWERS,
        "polls/s of the registry": polls,
        "busy share of the watch": ANSWERS / window * look,
        "s to read a day's journal": _line(costs, "journal of {} rows read, s", 3 * windows * DAY),
    }
    if "polls/s of 8 processes, PostgreSQL" in costs:
        made["busy share of PostgreSQL by polls"] = polls / costs["polls/s of 8 processes, PostgreSQL"]
    sizes = [n for n in (2, 8, 16) if f"busy share of Serve's controller, {n} replicas" in costs]
    if sizes:
        busy = [costs[f"busy share of Serve's controller, {n} replicas"] for n in sizes]
        slope, base = np.polyfit(sizes, busy, 1)
        made["busy share of Serve's controller"] = float(base + slope * nodes * REPLICAS)
    return made


def _line(costs: Costs, name: str, size: float) -> float:
    """On the straight line through what was measured for 100 and for 1,000."""
    few, many = costs[name.format(100)], costs[name.format(1000)]
    return few + (many - few) / 900 * (size - 100)


def measured(postgresql: str | None, *, serve: bool) -> Costs:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs: Costs = {}
        parts = [
            ("tables", lambda: of_tables(folder)),
            ("spools", lambda: of_spools(folder)),
            ("the loop", lambda: of_the_loop(folder)),
            ("MLflow", lambda: of_mlflow(Settings(storage=str(folder / "sqlite")), "SQLite")),
        ]
        if postgresql:
            parts.append(("PostgreSQL", lambda: of_postgresql(postgresql, folder)))
        if serve:
            parts.append(("Serve", of_serve))
        for part, measure in parts:
            print(f"measuring {part}", file=sys.stderr)
            costs |= measure()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", metavar="URL", help="of an empty database, for MLflow")
    parser.add_argument("--serve", action="store_true", help="start Ray and measure Serve's controller too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the unit costs")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="reckon with unit costs that were kept")
    asked = parser.parse_args()
    prepare_environment()
    costs = json.loads(asked.costs.read_text()) if asked.costs else measured(asked.postgresql, serve=asked.serve)
    if asked.json:
        asked.json.write_text(json.dumps(costs, indent=2))
    print(
        table(
            f"unit costs on {os.cpu_count()} cores", ["", ""], [[name, f"{cost:.4g}"] for name, cost in costs.items()]
        )
    )
    serving = SPEC.serving
    for flush, poll, window in ((serving.flush_seconds, serving.poll_seconds, SPEC.monitoring.window), LARGE):
        columns = [reckon(costs, nodes, flush, poll, window) for nodes in NODES]
        rows = [[name, *(_told(column[name]) for column in columns)] for name in columns[0]]
        title = f"{ANSWERS:,} answers/s, {REPLICAS} replicas a node: "
        title += f"flush_seconds {flush:g}, poll_seconds {poll:g}, window {window:,}"
        print(table(title, ["", *(f"{nodes:,} nodes" for nodes in NODES)], rows))


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004


if __name__ == "__main__":
    main()
