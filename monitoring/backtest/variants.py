"""The policies that a backtest compares: fixed ones to measure by, the spec's own, and variants of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import UserError
from jobs import specfile
from jobs.spec import MonitoringSpec, Spec, set_dotted

NEVER, ALWAYS, OURS = "never", "every window", "spec"
_PART = "monitoring."


@dataclass(frozen=True)
class Policy:
    """Retrains after every `every` windows, never at 0; when None, as the watch decides by `monitoring`."""

    name: str
    monitoring: MonitoringSpec
    every: int | None = None


def policies(spec: Spec, every: Sequence[int] = (), variants: Sequence[str] = ()) -> list[Policy]:
    """Never, every window, every so many, the spec's own, and variants of it (`parse`). Raises UserError, SpecError."""
    given = [
        Policy(NEVER, spec.monitoring, 0),
        Policy(ALWAYS, spec.monitoring, 1),
        *(Policy(f"every {count} windows", spec.monitoring, count) for count in every),
        Policy(OURS, spec.monitoring),
        *(parse(text, spec) for text in variants),
    ]
    names = [one.name for one in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two policies are named {', '.join(twice)}", mend="give each a name of its own")
    return given


def parse(text: str, spec: Spec) -> Policy:
    """Of `NAME: monitoring.KEY=VALUE, ...`; the other keys are the spec's. Raises UserError, SpecError."""
    name, _, rest = (part.strip() for part in text.partition(":"))
    pairs = [pair.strip() for pair in rest.split(",")]
    if not name or not all(pair.partition("=")[0] and pair.partition("=")[2] for pair in pairs):
        mend = "for example --policy 'eager: monitoring.consecutive=1, monitoring.min_labels=100'"
        raise UserError(f"--policy {text!r} is not NAME: KEY=VALUE, KEY=VALUE", mend=mend)
    tree = spec.model_dump(mode="json")
    for key, value in map(specfile.parse_override, pairs):
        set_dotted(tree, key, value)
    made = specfile.parse(tree, where=f"--policy {name!r}")
    others = [pair for pair in pairs if not pair.startswith(_PART)]
    if others:
        mend = f"only {_PART}* decides when to retrain"
        raise UserError(f"{', '.join(others)} changes nothing in a replay", where=f"--policy {name!r}", mend=mend)
    return Policy(name, made.monitoring)
