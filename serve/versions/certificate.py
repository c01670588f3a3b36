"""What is kept of a version that answered as its trainer did: by which engine, how far apart, who was asked, when.

It is the tag `parity` of the version. Loads no model: for who only asks the state of things.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TAG = "parity"


@dataclass(frozen=True)
class Measured:
    """One engine on a version: `seconds` for all golden inputs at once and for one alone, the best of five at most.

    `apart` is the largest difference of a probability from the trainer's on them. `accuracy` is on the version's test
    rows, where the trainer's was `before` and has the same label for the share `alike`; all None but for what computes
    with fewer bits.
    `fault` says why the engine is not to be had, "" where it is.
    """

    engine: str
    seconds: float | None = None
    apart: float | None = None
    accuracy: float | None = None
    before: float | None = None
    alike: float | None = None
    fault: str = ""


@dataclass(frozen=True)
class Certificate:
    """`apart` is the largest difference of a probability from the trainer's on so many golden `inputs`.

    `replica` is the server whose replica was asked, "" where none ran and the process that promoted loaded the version
    itself. `engines` are what was measured where the engine is chosen by measurement. `at` is in UTC.
    """

    version: int
    engine: str
    inputs: int
    apart: float
    allowed: float
    replica: str
    at: str
    engines: tuple[Measured, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Certificate:
        return cls(**{**tree, "engines": tuple(Measured(**one) for one in tree["engines"])})


def read(tags: Mapping[str, str]) -> Certificate | None:
    """Of a version's tags; None where it has not been promoted or judged since there are certificates."""
    return Certificate.from_dict(json.loads(tags[TAG])) if TAG in tags else None


def said(tags: Mapping[str, str]) -> str:
    """What a person reads of it; "" where there is none."""
    made = read(tags)
    if made is None:
        return ""
    who = f"a live replica at {made.replica}" if made.replica else "the process that judged it, as nothing served"
    what = f"{made.inputs} golden inputs at most {made.apart:.2g} from the trainer ({made.allowed:g} allowed)"
    return "; ".join([f"parity: {made.engine} answered {what}, {made.at}, asked of {who}", *map(_engine, made.engines)])


def _engine(one: Measured) -> str:
    took = "" if one.seconds is None else f" {1000 * one.seconds:.1f} ms"
    kept = "" if one.accuracy is None else f", accuracy {one.accuracy:.3f} where the trainer has {one.before:.3f}"
    return f"{one.engine}{took}{kept}{f': {one.fault}' if one.fault else ''}"
