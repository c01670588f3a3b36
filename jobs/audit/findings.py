"""From what was measured on the rows to findings: what is wrong, how bad it is, in which rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs import tasks
from jobs.data.near import pairs
from jobs.data.preparation import Loaded
from jobs.data.split import SPLITS
from jobs.spec import Spec
from jobs.training.balance import rare

from .labels import Doubts
from .neighbours import Neighbours, outliers
from .text import commonest, encoding_fault

Severity = Literal["error", "warning", "note"]

NEAR = 0.9  # Jaccard similarity from which kept rows count as near, when the spec keeps all of them
_EXAMPLES = 10


@dataclass(frozen=True)
class Example:
    """A row of the source; `detail` says what is wrong with it."""

    row: int
    input: str
    label: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """`rows` are all rows concerned, numbered as in the source; `examples` the first or worst ten of them."""

    kind: str
    severity: Severity
    said: str
    rows: tuple[int, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Written:
    """`tokens`, shape (rows,); `languages` as ISO 639-1 codes."""

    tokens: NDArray[np.int64]
    languages: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """Of each kept row, in order; `doubts` where its target is one label, `written` where it is a text."""

    neighbours: Neighbours
    doubts: Doubts | None = None
    written: Written | None = None


def findings(loaded: Loaded, measured: Measured, spec: Spec) -> list[Finding]:
    """Every kind that occurs, errors first."""
    rows = loaded.rows
    found = [
        *_dropped(loaded, spec),
        *_near(rows, spec),
        *_semantic(rows, measured.neighbours, spec.audit.semantic_duplicates),
        *(_labels(rows, measured.doubts, loaded.taken.labels) if measured.doubts else ()),
        *(_texts(rows, measured.written, spec) if measured.written else ()),
        *_outliers(rows, measured.neighbours, spec.audit.outliers),
        *_personal(loaded.taken.personal, spec),
        *(_balance(rows, spec) if measured.doubts else ()),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _dropped(loaded: Loaded, spec: Spec) -> Iterator[Finding]:
    """What cleaning dropped, by reason; a copy that the given splits had on another side is a leak."""
    for reason, mine in loaded.dropped.groupby("reason", sort=True):
        severity: Severity = "warning" if reason in {"empty input", "empty label", "conflicting labels"} else "note"
        yield _finding(str(reason), severity, "dropped", mine, _copies(mine))
    if spec.data.split.column is not None:
        side = dict(zip(loaded.rows["row"], loaded.rows["split"], strict=True))
        twins = loaded.dropped["of"].map(side)
        across = loaded.dropped[twins.notna() & (twins != loaded.dropped["split"])]
        if len(across):
            said = "inputs that data.split.column has in two splits; the later copy is dropped"
            yield _finding("leak", "error", said, across, _copies(across))


def _copies(dropped: pd.DataFrame) -> list[str]:
    return [f"as row {of}" if of else "" for of in dropped["of"]]


def _near(rows: pd.DataFrame, spec: Spec) -> Iterator[Finding]:
    """Near duplicates among the kept rows: there are some only where the spec lets them through."""
    allowed = spec.data.near_duplicates
    if allowed is not None and allowed <= NEAR:
        return
    inside: dict[int, str] = {}
    across: dict[int, str] = {}
    split, number = list(rows["split"]), list(rows["row"])
    for one, other in pairs(list(rows["input"].map(tasks.get(spec.task).inputs.key)), NEAR):
        where = inside if split[one] == split[other] else across
        where[other] = f"near row {number[one]} ({split[one]})"
    said = f"near duplicates (Jaccard {NEAR:g} or more)"
    yield from _at("leak", "error", f"{said} in two splits; data.near_duplicates: {NEAR:g} drops them", rows, across)
    yield from _at("near duplicate", "note", f"{said} in one split, kept as the spec says", rows, inside)


def _semantic(rows: pd.DataFrame, near: Neighbours, least: float) -> Iterator[Finding]:
    """Across splits a pair is told at the row of the later split: it is what an evaluation counts twice."""
    own = np.asarray([SPLITS.index(split) for split in rows["split"]])[:, None]
    number, alike = rows["row"].to_numpy(), near.similarity >= least

    def named(where: NDArray[np.bool_]) -> dict[int, str]:
        return {
            int(i): f"row {number[near.nearest[i, j]]} ({SPLITS[j]}), cosine {near.similarity[i, j]:.3f}"
            for i, j in np.argwhere(alike & where)
        }

    part, said = np.arange(near.similarity.shape[1]), f"(cosine {least:g} or more)"
    yield from _at("semantic leak", "warning", f"the same as a row of an earlier split {said}", rows, named(part < own))
    yield from _at(
        "semantic duplicate", "note", f"the same as a row of their own split {said}", rows, named(part == own)
    )


def _labels(rows: pd.DataFrame, doubts: Doubts, labels: Sequence[str]) -> Iterator[Finding]:
    ranked = [int(i) for i in np.argsort(-doubts.doubt, kind="stable") if doubts.wrong[i]]
    hits = {i: f"likelier {labels[doubts.suggested[i]]} (doubt {doubts.doubt[i]:.2f})" for i in ranked}
    yield from _at("label", "warning", "labels that confident learning takes for errors, the worst first", rows, hits)
    rare = {int(i): "the only row of its label" for i in np.flatnonzero(~doubts.judged)}
    yield from _at("label not judged", "note", "labels with one row cannot be judged", rows, rare)


def _texts(rows: pd.DataFrame, measured: Written, spec: Spec) -> Iterator[Finding]:
    longest = spec.training.max_length
    order = np.argsort(-measured.tokens, kind="stable")
    long = {int(i): f"{measured.tokens[i]} tokens" for i in order if measured.tokens[i] > longest}
    yield from _at("too long", "warning", f"more than training.max_length {longest} tokens: cut", rows, long)
    expected = spec.audit.language or commonest(measured.languages)
    other = {i: f"looks like {code}" for i, code in enumerate(measured.languages) if code not in {"", expected}}
    yield from _at("language", "warning", f"in another language than {expected}", rows, other)
    encoded = {i: fault for i, text in enumerate(rows["input"]) if (fault := encoding_fault(text))}
    yield from _at("encoding", "warning", "decoded wrongly before they came here", rows, encoded)


def _outliers(rows: pd.DataFrame, near: Neighbours, deviations: float) -> Iterator[Finding]:
    far = outliers(near.distance, deviations)
    ranked = [int(i) for i in np.argsort(-near.distance, kind="stable") if far[i]]
    hits = {i: f"distance {near.distance[i]:.2f}" for i in ranked}
    middle = float(np.median(near.distance))
    yield from _at("outlier", "warning", f"far from every other row (median distance {middle:.2f})", rows, hits)


def _personal(personal: Mapping[str, Sequence[int]], spec: Spec) -> Iterator[Finding]:
    """Without examples: a report is no place for them."""
    masked = spec.data.pii == "mask"
    for kind, mine in personal.items():
        if mine:
            said = f"{kind.lower()} in the text: {'masked' if masked else 'kept; data.pii: mask hides them'}"
            yield Finding(f"personal data: {kind.lower()}", "note" if masked else "warning", said, tuple(mine), ())


def _balance(rows: pd.DataFrame, spec: Spec) -> Iterator[Finding]:
    found = rare(rows["label"])
    remedy = {"none": "see data.balance", "class_weights": "their loss weighs more", "oversample": "they are repeated"}
    if found:
        named = ", ".join(f"{label} {share:.1%}" for label, share in found.items())
        severity: Severity = "warning" if spec.data.balance == "none" else "note"
        mine = rows["row"][rows["label"].isin(list(found))]
        said = f"rare labels ({named}): {remedy[spec.data.balance]}"
        yield Finding("imbalance", severity, said, tuple(map(int, mine)), ())


def _at(kind: str, severity: Severity, said: str, rows: pd.DataFrame, details: Mapping[int, str]) -> Iterator[Finding]:
    """A finding on the rows at these positions, when there are any; their order is that of the examples."""
    if details:
        yield _finding(kind, severity, said, rows.iloc[list(details)], list(details.values()))


def _finding(kind: str, severity: Severity, said: str, mine: pd.DataFrame, details: Iterable[str]) -> Finding:
    shown = mine.head(_EXAMPLES)
    examples = (
        Example(int(row), str(text), str(label), detail)
        for row, text, label, detail in zip(shown["row"], shown["input"], shown["label"], details, strict=False)
    )
    return Finding(kind, severity, said, tuple(map(int, mine["row"])), tuple(examples))
