"""The sections of a model card, each as Markdown from the facts. What is not known is said, not left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.data.dataset import DatasetVersion
from jobs.data.split import SPLITS
from jobs.evaluation.scorecard import Interval, Scorecard
from jobs.evaluation.slices import Gap, Slice
from jobs.models.provenance import PARTS

from .facts import Facts, Told
from .page import code, table, text

METHODS = {
    "lora": "LoRA adapters",
    "rslora": "Rank-stabilised LoRA adapters",
    "dora": "DoRA adapters",
    "qlora": "QLoRA adapters (trained on 4-bit weights)",
    "ia3": "IA3 adapters",
    "prompt-tuning": "A learned prompt",
    "full": "All weights",
}

NOT_MEASURED, NOT_KNOWN = "not measured", "not known"
_NOT_STATED = "not stated in the spec, key card"
_SLICES = 12


def intended_use(facts: Facts) -> str:
    stated = facts.card.model_dump()
    return _pairs({key.replace("_", " "): text(stated[key] or _NOT_STATED) for key in stated})


def data(facts: Facts) -> str:
    made = facts.data
    counts = ([split, *made.counts[split].values(), made.size(split)] for split in SPLITS)
    dropped = ", ".join(f"{n} {reason}" for reason, n in made.dropped.items()) or "nothing"
    return "\n\n".join(
        [
            f"Version {code(f'{made.name}/{made.version}')} of {text(made.source)}.",
            table(["split", *map(text, made.listed), "rows"], counts),
            f"Dropped in cleaning: {text(dropped)}.",
            f"Audit: {_audit(facts)}",
        ]
    )


def method(facts: Facts) -> str:
    spec = facts.spec
    head = METHODS[spec.method.name]
    named = {
        f"{part}.{key}": value
        for part in ("method", "training", "scaling")
        for key, value in getattr(spec, part).model_dump(mode="json").items()
    }
    rows = ([code(key), text(value)] for key, value in named.items())
    return "\n\n".join(
        [
            f"{head} on {code(spec.base_model)}, with Ray Train and DeepSpeed. {_start(facts)}",
            table(["parameter", "value"], rows),
            _pictures(facts, "learning-curve"),
        ]
    )


def scorecard(facts: Facts) -> str:
    parts = [part for name, card in facts.scorecards.items() for part in _part(facts, name, card)]
    return "\n\n".join([*parts, "### Robustness", _robustness(facts), "### Speed and size", _footprint(facts)])


def slices(facts: Facts) -> str:
    return "\n\n".join(part for name, card in facts.scorecards.items() for part in _slices(facts, name, card))


def forgetting(facts: Facts) -> str:
    found = facts.forgetting
    if found is None:
        return f"{NOT_MEASURED.capitalize()}: the version was not trained on from another one."
    rows: list[list[str]] = [["before", "", "", "", f"{found.before.anchor:.3f}", "", _share(found.before.new), ""]]
    for index, made in enumerate(found.attempts):
        recipe, after = made.recipe, made.measured
        recipes = [text(recipe.name), f"{recipe.replay:g}", f"{recipe.ewc_lambda:g}", f"{recipe.blend:g}"]
        numbers = [f"{after.anchor:.3f}", f"{100 * made.loss:+.1f}", _share(after.new)]
        rows.append([*recipes, *numbers, "this version" if index == found.published else ""])
    said = f"Anchor: {found.metric} on {found.anchor} ({found.rows}), which may lose {100 * found.budget:.1f} points."
    head = ["attempt", "replay of old rows", "EWC lambda", "blend", "anchor", "lost, points", "new rows", ""]
    return f"{text(said)}\n\n{table(head, rows)}"


def verdict(told: Told | None) -> str:
    found = told.verdict if told else None
    if found is None:
        return "Not judged yet."
    said = "Promoted" if found["promote"] else "Refused"
    checks = ([text(c["rule"]), text(c["on"]), _outcome(c), text(c["said"])] for c in found.get("checks", ()))
    listed = table(["rule", "on", "", "what was found"], checks) if found.get("checks") else ""
    return f"{said}: {text('; '.join(found['reasons']))}.\n\n{listed}".strip()


def lineage(facts: Facts, told: Told | None) -> str:
    manifest = facts.manifest
    parent = manifest["parent"]
    line = ", from ".join(f"version {number}" for number in told.line) if told else f"version {parent}"
    pairs = {
        "parents": "none" if parent is None else text(line),
        "dataset": text(", from ".join(_named(made) for made in (facts.data, *facts.ancestors))),
        "run": code(manifest["run"]),
        "job": code(manifest["job"]) if manifest["job"] else "none, it was trained by hand",
        "code": code(manifest["code"]),
        "spec": code(facts.spec.hash),
        "seed": str(facts.spec.training.seed),
    }
    pairs |= {part: text(", ".join(f"{k} {v}" for k, v in manifest[part].items())) for part in PARTS}
    causes = told.causes if told else ()
    listed = "\n".join(f"- {text(cause)}" for cause in causes) or "The journal has nothing of it."
    version = told.version.version if told else "VERSION"
    again = f"`rehone reproduce {facts.spec.name} {version}` trains it again and says how far the figures differ."
    return "\n\n".join([_pairs(pairs), "What led to it and what became of it:", listed, again])


def carbon(facts: Facts) -> str:
    """Sweeps are not in it: their winner may be used by many trainings."""
    if facts.seconds is None or facts.energy is None:
        return f"{NOT_MEASURED.capitalize()}."
    spent, workers = facts.energy, facts.spec.scaling.said_workers
    unit = "give REHONE_CPU_WATTS and REHONE_GPU_WATTS"
    pairs = {
        "training": f"{facts.seconds:.0f} s on {workers} workers, sweeps not counted",
        "CPU core hours": f"{spent.cpu_hours:.4f}",
        "GPU hours": f"{spent.gpu_hours:.4f}",
        "energy": f"{1000 * spent.kwh:.3g} Wh" if spent.kwh is not None else f"{NOT_KNOWN} ({unit})",
        "carbon": f"{spent.grams:.3g} g CO2e" if spent.grams is not None else f"{NOT_KNOWN} (REHONE_GRID_GRAMS too)",
        "cost": f"{spent.price:.3g}" if spent.price is not None else f"{NOT_KNOWN} (give REHONE_CPU_HOUR_PRICE)",
    }
    return _pairs(pairs)


def _pairs(pairs: Mapping[str, str]) -> str:
    return table(["", ""], pairs.items())


def _named(made: DatasetVersion) -> str:
    return f"{made.name}/{made.version}"


def _audit(facts: Facts) -> str:
    made = facts.audit
    if made is None:
        return f"{NOT_MEASURED} (`rehone audit SPEC`)."
    of = "" if made["dataset"] == facts.data.version else f" of its ancestor {made['dataset']}"
    rows = ([f["severity"], text(f["kind"]), len(f["rows"]), text(f["said"])] for f in made["findings"])
    found = table(["", "finding", "rows", ""], rows) if made["findings"] else "Nothing was found."
    return f"{made['kept']} of {made['rows']} rows{of} were kept.\n\n{found}"


def _start(facts: Facts) -> str:
    if facts.manifest["parent"] is None:
        return "It started from the base model."
    if facts.forgetting is None:
        return f"A retraining after version {facts.manifest['parent']}, from the base model."
    return f"A retraining that went on from version {facts.manifest['parent']}."


def _part(facts: Facts, name: str, card: Scorecard) -> Iterator[str]:
    percent = f"{100 * facts.spec.evaluation.confidence:g}%"
    yield f"### Test rows, {name}: {card.rows}"
    metrics = ([text(metric), f"{value.value:.3f}", _range(value)] for metric, value in card.metrics.items())
    yield table(["metric", "value", f"{percent} bootstrap interval"], metrics)
    labels = (
        [text(label), f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", s.support, *said]
        for (label, s), said in zip(card.per_label.items(), card.confusion or ((),) * len(card.per_label), strict=True)
    )
    others = (f"as {text(label)}" for label in card.labels if card.confusion)
    if card.per_label:
        yield table(["true label", "precision", "recall", "F1", "rows" if card.confusion else "times", *others], labels)
    yield f"Calibration: {_calibration(card)}"
    yield _pictures(facts, f"{name}-confusion", f"{name}-reliability")


def _calibration(card: Scorecard) -> str:
    sure = card.calibration
    if sure is None:
        return f"{NOT_MEASURED}."
    return (
        f"expected calibration error {sure.error:.3f}; 95 of 100 perfectly calibrated models stay below "
        f"{sure.by_chance:.3f} on as many rows."
    )


def _robustness(facts: Facts) -> str:
    if not facts.robustness:
        return f"{NOT_MEASURED.capitalize()}."
    rows = (
        [text(r.change), r.rows, r.touched, f"{r.accuracy_before:.3f}", f"{r.accuracy:.3f}", f"{r.changed:.1%}"]
        for r in facts.robustness
    )
    return table(["change", "rows", "touched", "accuracy before", "after", "answers changed"], rows)


def _footprint(facts: Facts) -> str:
    made = facts.footprint
    if made is None:
        return f"{NOT_MEASURED.capitalize()}."
    rows = ([n.batch, f"{n.median_ms:.1f}", f"{n.p95_ms:.1f}"] for n in made.latencies)
    sizes = f"{made.weight_bytes / 2**20:.1f} MiB of weights in memory, {made.file_bytes / 2**20:.1f} MiB of own files."
    return f"{table(['inputs at once', 'median, ms', '95th percentile, ms'], rows)}\n\n{sizes}"


def _slices(facts: Facts, name: str, card: Scorecard) -> Iterator[str]:
    yield f"### Test rows, {name}"
    if not card.slices:
        yield f"{NOT_MEASURED.capitalize()}: no slice has rows."
        return
    yield table(["slice", "rows", "accuracy", "interval", ""], map(_slice, card.slices[:_SLICES]))
    if len(card.slices) > _SLICES:
        yield f"The worst {_SLICES} of {len(card.slices)}; all are in scorecard.json."
    gaps = map(_gap, card.gaps)
    head = ["column", "worst", "best", "accuracy gap, points", "p", "gap in predicted share, points"]
    yield table(head, gaps) if card.gaps else f"Fairness gaps: {NOT_MEASURED} (no column in `data.slices`)."
    yield _pictures(facts, f"{name}-slices")


def _slice(found: Slice) -> list[str]:
    interval = f"[{found.low:.3f}, {found.high:.3f}]"
    return [text(found.name), str(found.rows), f"{found.accuracy:.3f}", interval, "" if found.enough else "few rows"]


def _gap(found: Gap) -> list[str]:
    named = [text(name) for name in (found.column, found.worst, found.best)]
    predicted = f"{100 * found.predicted:.1f} ({text(found.label)})"
    return [*named, f"{100 * found.accuracy:.1f}", f"{found.p_value:.2g}", predicted]


def _pictures(facts: Facts, *names: str) -> str:
    """Those of the version that have one of these file names, beside each other."""
    found = {Path(path).stem: path for path in facts.pictures}
    return "\n".join(f"![{name.replace('-', ' ')}]({found[name]})" for name in names if name in found)


def _outcome(check: Mapping[str, Any]) -> str:
    if not check["judged"]:
        return "not judged"
    return "passed" if check["passed"] else "failed"


def _range(value: Interval) -> str:
    return f"[{value.low:.3f}, {value.high:.3f}]"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
