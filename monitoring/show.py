"""What a person reads of verdicts, decisions and the state of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs import show
from jobs.evaluation import show as show_evaluation
from jobs.models.publish import Published
from serve.versions import certificate

from .judges.gate import Verdict
from .judges.harm import SLICE, Check
from .policy import Decision
from .trace import Origin, Traced, Use

_QUIET_SLICES = 5
_SHORT = 100


def verdict(made: Verdict) -> str:
    said = [f"gate: {'promoted' if made.promote else 'refused'}: {'; '.join(made.reasons)}"]
    if made.checks:
        said.append(_checks(made))
    return "\n".join(said)


def published(made: Published, judged: Verdict) -> str:
    version = made.version
    head = f"{version.model} version {version.version}, run {version.run}"
    forgotten = [show.forgetting(made.forgetting)] if made.forgetting else []
    return "\n\n".join([f"{head}\n{show_evaluation.evaluation(made.evaluation)}", *forgotten, verdict(judged)])


def decision(made: Decision) -> str:
    wanted = any(reason.endswith("labels needed") for reason in made.reasons)
    reasons = [*made.reasons, *["`rehone label SPEC --out FILE` chooses the rows most worth one"] * wanted]
    seen = f"; what drifted: {made.page}" if made.drifted else ""
    return f"{made.at:%H:%M:%S} {made.action.upper():8} {'; '.join(reasons)}{seen}"


def status(found: dict[str, Any]) -> str:
    """`found` is what `controller.status` gives."""
    term = found["watching"]
    watched = f"watched by {term.holder}" if term else "not watched"
    lines = [f"{found['model']}: {found['serving'] or 'not served'}; {watched}", show.versions(found["versions"])]
    for version in found["versions"]:
        parity = certificate.said(version.tags) if version.aliases else ""
        if parity:
            lines.append(f"version {version.version}, {parity}")
    if found["paused"]:
        lines.append(f"{found['paused']} (`rehone resume` ends it)")
    if found["awaits"]:
        version, why = found["awaits"]["version"], found["awaits"]["why"]
        lines.append(f"version {version} passed and waits: {why}; `rehone promote` lets it serve")
    if found["trial"]:
        lines.append(_trial(found["trial"]))
    windows = ([w["number"], w["version"], w["rows"], _drift(w), _accuracy(w)] for w in found["windows"])
    lines.append(show.table("last windows", ["window", "version", "rows", "drift", "accuracy"], windows))
    pages = [f"  {w['page']}" for w in found["windows"] if w["drifted"]]
    if pages:
        lines.append("\n".join(["what drifted, under the storage root:", *pages]))
    decisions = ([d["at"][:19], d["action"], "; ".join(d["reasons"])] for d in found["decisions"])
    lines.append(show.table("last decisions", ["at (UTC)", "decision", "why"], decisions))
    jobs = ([job["submission_id"], job["status"]] for job in found["jobs"])
    lines.append(show.table("jobs", ["id", "status"], jobs) if found["jobs"] else found["unreachable"] or "no jobs")
    return "\n\n".join(lines)


def traced(made: Traced) -> str:
    """An answer, and what is behind it from the nearest to the farthest."""
    text = made.input if len(made.input) <= _SHORT else f"{made.input[:_SHORT]}..."
    true = "no true label has come in" if made.true is None else f"true label: {made.true}"
    said = f"{made.at:%Y-%m-%d %H:%M:%S} UTC: {made.label} ({made.confidence:.3f}); {true}"
    return f"{made.prediction_id}\n{said}\ninput: {text!r}\n\n{origin(made.origin)}"


def origin(made: Origin) -> str:
    version, data = made.version, made.data
    sizes = ", ".join(f"{size} {split}" for split, size in data.sizes.items())
    rows = [
        ["model", f"{version.model} version {version.version} {list(version.aliases) or ''}"],
        ["follows", ", ".join(f"version {number}" for number in made.line) or "the base model"],
        ["base model", made.base_model],
        ["run", version.run],
        ["job", made.job or "none: a command was run by hand"],
        ["spec", made.spec],
        ["code", made.code],
        ["dataset", f"{data.name}/{data.version} ({sizes})"],
        ["from", data.source],
    ]
    led = made.causes or ["no decision, verdict or promotion is in the journal"]
    return "\n".join([show.table("", ["behind it", ""], rows), "", *led])


def uses(found: Sequence[Use]) -> str:
    if not found:
        return "no model version was trained on it"
    rows = (
        [
            f"{use.version.model} {use.version.version}",
            ", ".join(use.version.aliases),
            use.data.version,
            use.answers,
            *(f"{at:%Y-%m-%d %H:%M:%S}" if at else "" for at in (use.first, use.last)),
        ]
        for use in found
    )
    return show.table("", ["version", "alias", "dataset", "answers", "first (UTC)", "last (UTC)"], rows)


def _checks(made: Verdict) -> str:
    """Every check, the failed ones first; of the slices that did no harm only those with the largest losses."""
    quiet = [c for c in made.checks if c.rule == SLICE and c.passed]
    told = [c for c in sorted(made.checks, key=lambda c: c.passed) if c not in quiet[_QUIET_SLICES:]]
    head = ["check", "", "on", "rows", "champion", "challenger", "points", "p"]
    lines = [show.table("", head, map(_check, told))]
    if len(quiet) > _QUIET_SLICES:
        lines.append(f"{len(quiet) - _QUIET_SLICES} more slices lost less")
    return "\n".join(lines)


def _check(check: Check) -> list[str]:
    state = "not judged" if not check.judged else "passed" if check.passed else "FAILED"
    found = check.numbers
    if "ratio" in found:
        return [check.rule, state, check.on, "", "", f"{found['ratio']:.2f} times", "", ""]
    p_value = found.get("adjusted_p_value", found.get("p_value")) if check.judged else None
    values = (f"{found['champion']:.3f}", f"{found['challenger']:.3f}", f"{100 * found['gain']:+.1f}")
    return [check.rule, state, check.on, f"{found['rows']:.0f}", *values, "" if p_value is None else f"{p_value:.2g}"]


def _trial(found: dict[str, Any]) -> str:
    said = "; ".join(found["reasons"]) or "not looked at yet"
    return f"version {found['version']} is on trial since {found['began']:%Y-%m-%d %H:%M:%S} UTC: {said}"


def _drift(window: dict[str, Any]) -> str:
    moved = [c["name"] for c in window["columns"] if c["drifted"]]
    return ", ".join(moved) or "none"


def _accuracy(window: dict[str, Any]) -> str:
    """By the labels that have come in for the window's rows until now, beside what was estimated without any."""
    now, was = window["now"], f"was {window['reference_accuracy']:.3f}"
    estimated = f"estimated {window['estimated']['accuracy']:.3f}"
    if now["accuracy"] is None:
        return f"no labels, {estimated} ({was})"
    return f"{now['accuracy']:.3f} on {now['labelled']}, {estimated} ({was})"
