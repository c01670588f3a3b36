"""What a person reads of an audit on a terminal."""

from __future__ import annotations

from jobs.show import table

from .audit import Audit


def audit(made: Audit) -> str:
    rows = ([f.severity, f.kind, len(f.rows), f"{len(f.rows) / made.rows:.1%}", f.said] for f in made.findings)
    found = table(f"audit of {made.name}/{made.dataset}", ["", "finding", "rows", "share", ""], rows)
    kept = f"{made.rows} rows, {made.kept} kept; {sum(made.seconds.values()):.0f} s, embeddings by {made.embedded_by}"
    files = f"{made.place}/report.html, audit.json, and doubtful.csv with the {made.doubtful} most doubtful labels"
    return f"{found}\n{kept}\n{files}"
