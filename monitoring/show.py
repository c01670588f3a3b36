"""What a person reads of verdicts, decisions and the state of the loop."""

from __future__ import annotations

from typing import Any

from jobs import show
from jobs.publish import Published

from .gate import Verdict
from .policy import Decision


def verdict(made: Verdict) -> str:
    return f"gate: {'promoted' if made.promote else 'refused'}: {'; '.join(made.reasons)}"


def published(made: Published, judged: Verdict) -> str:
    version = made.version
    head = f"{version.model} version {version.version}, run {version.run}"
    return f"{head}\n{show.scorecards(made.scorecards)}\n{verdict(judged)}"


def decision(made: Decision) -> str:
    return f"{made.at:%H:%M:%S} {made.action.upper():8} {'; '.join(made.reasons)}"


def status(found: dict[str, Any]) -> str:
    """`found` is what `loop.status` gives."""
    lines = [f"{found['model']}: {found['serving'] or 'not served'}", show.versions(found["versions"])]
    windows = ([w["number"], w["version"], w["rows"], _drift(w), _accuracy(w)] for w in found["windows"])
    lines.append(show.table("last windows", ["window", "version", "rows", "drift", "accuracy"], windows))
    decisions = ([d["at"][:19], d["action"], "; ".join(d["reasons"])] for d in found["decisions"])
    lines.append(show.table("last decisions", ["at (UTC)", "decision", "why"], decisions))
    jobs = ([job["submission_id"], job["status"]] for job in found["jobs"])
    lines.append(show.table("jobs", ["id", "status"], jobs) if found["jobs"] else "no jobs")
    return "\n\n".join(lines)


def _drift(window: dict[str, Any]) -> str:
    moved = [c["name"] for c in window["columns"] if c["drifted"]]
    return ", ".join(moved) or "none"


def _accuracy(window: dict[str, Any]) -> str:
    if window["accuracy"] is None:
        return "no labels"
    return f"{window['accuracy']:.3f} on {window['labelled']} (was {window['reference_accuracy']:.3f})"
