from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.audit.findings import Finding, Measured, Written, findings
from jobs.audit.labels import Doubts
from jobs.audit.neighbours import Neighbours
from jobs.data.clean import clean
from jobs.data.intake import Intake
from jobs.data.preparation import Loaded
from jobs.inputs import texts
from jobs.spec import Spec

WORDS = ["ash", "bay", "cap", "den", "elm", "fog", "gap", "hay", "ink", "jar", "kit", "log"]


def text(i: int) -> str:
    """Twelve words in an order of their own: no two texts are near."""
    return " ".join(np.random.default_rng(i).permutation(WORDS))


def rows(count: int = 12, **columns: Any) -> pd.DataFrame:
    made = pd.DataFrame({"input": [text(i) for i in range(count)], "label": ["a", "b"] * (count // 2)})
    made["row"] = range(1, count + 1)
    made["split"] = (["train"] * 8 + ["validation"] * 2 + ["test"] * 2)[:count]
    return made.assign(**columns)


def loaded(kept: pd.DataFrame, dropped: pd.DataFrame | None = None, personal: dict | None = None) -> Loaded:
    dropped = kept.iloc[:0].assign(reason="", of=0) if dropped is None else dropped
    return Loaded(kept, dropped, Intake(kept, dropped.iloc[:0], ["a", "b"], personal or {}, None))


def measured(count: int = 12, **changes: Any) -> Measured:
    nearest, similarity = np.full((count, 3), 0), np.full((count, 3), 0.5, np.float32)
    written = {"tokens": np.full(count, 9), "languages": ["en"] * count}
    written |= {name: changes.pop(name) for name in tuple(changes) if name in written}
    plain = {
        "written": Written(**written),
        "neighbours": Neighbours(np.linspace(0.4, 0.5, count).astype(np.float32), nearest, similarity),
        "doubts": Doubts(np.full(count, 0.1), np.arange(count) % 2, np.zeros(count, bool), np.ones(count, bool)),
    }
    return Measured(**plain | changes)  # type: ignore[arg-type]


def spec_with(spec: Spec, **values: Any) -> Spec:
    return spec.with_values({key.replace("__", "."): value for key, value in values.items()})


def by_kind(found: list[Finding]) -> dict[str, Finding]:
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def test_clean_data_has_no_finding(spec: Spec) -> None:
    assert findings(loaded(rows()), measured(), spec) == []


def test_near_texts_in_two_splits_are_an_error_and_come_first(spec: Spec) -> None:
    kept = rows()
    long = " ".join(text(i) for i in range(50, 53))
    kept.loc[[0, 1, 11], "input"] = [long, f"{long} more", f"{long} less"]
    found = findings(loaded(kept), measured(), spec)
    assert (found[0].kind, found[0].severity, found[0].rows) == ("leak", "error", (12,))
    assert found[0].examples[0].detail == "near row 1 (train)" or found[0].examples[0].detail == "near row 2 (train)"
    assert by_kind(found)["near duplicate"].rows == (2,)
    assert findings(loaded(kept), measured(), spec_with(spec, data__near_duplicates=0.9)) == []


def test_copies_in_two_given_splits_are_an_error_though_they_are_dropped(spec: Spec) -> None:
    given = rows()
    given.loc[[3, 11], "input"] = [given["input"][0]] * 2
    given.loc[[3, 11], "label"] = "a"
    kept, dropped = clean(given, 0.9, texts.key)
    by_column = spec_with(spec, data__split={"by": "column", "column": "side"}, data__near_duplicates=0.9)
    found = by_kind(findings(loaded(kept, dropped), measured(10), by_column))
    assert found["leak"].rows == (12,)
    assert found["leak"].examples[0].detail == "as row 1"
    assert found["duplicate"].rows == (4, 12)
    assert "leak" not in by_kind(
        findings(loaded(kept, dropped), measured(10), spec_with(spec, data__near_duplicates=0.9))
    )


def test_what_says_the_same_is_told_within_and_across_splits(spec: Spec) -> None:
    nearest, similarity = np.zeros((12, 3), int), np.full((12, 3), 0.5, np.float32)
    nearest[1, 0], similarity[1, 0] = 4, 0.97  # train row near a train row
    nearest[10, 0], similarity[10, 0] = 2, 0.99  # test row near a train row
    nearest[2, 2], similarity[2, 2] = 10, 0.99  # the same pair from the other side
    near = Neighbours(np.linspace(0.4, 0.5, 12).astype(np.float32), nearest, similarity)
    found = by_kind(findings(loaded(rows()), measured(neighbours=near), spec))
    assert (found["semantic leak"].rows, found["semantic leak"].severity) == ((11,), "warning")
    assert found["semantic leak"].examples[0].detail == "row 3 (train), cosine 0.990"
    assert (found["semantic duplicate"].rows, found["semantic duplicate"].severity) == ((2,), "note")


def test_each_kind_names_its_rows_the_worst_first(spec: Spec) -> None:
    doubt, wrong = np.full(12, 0.1), np.zeros(12, bool)
    doubt[[4, 7]], wrong[[4, 7]] = [0.8, 0.95], True
    suggested = np.arange(12) % 2
    suggested[[4, 7]] = [1, 0]
    tokens = np.full(12, 9)
    tokens[[2, 3]] = [40, 90]
    distance = np.linspace(0.4, 0.5, 12).astype(np.float32)
    distance[9] = 1.4
    near = Neighbours(distance, np.zeros((12, 3), int), np.full((12, 3), 0.5, np.float32))
    languages = ["en"] * 12
    languages[5], languages[6] = "de", ""
    kept = rows()
    kept.loc[8, "input"] = f"schÃ¶n {kept['input'][8]}"
    judged = np.ones(12, bool)
    seen = measured(tokens=tokens, languages=languages, neighbours=near, doubts=Doubts(doubt, suggested, wrong, judged))
    found = by_kind(findings(loaded(kept), seen, spec))
    assert {kind: finding.rows for kind, finding in found.items()} == {
        "label": (8, 5),
        "too long": (4, 3),
        "language": (6,),
        "encoding": (9,),
        "outlier": (10,),
    }
    assert found["label"].examples[0].detail == "likelier a (doubt 0.95)"
    assert all(finding.severity == "warning" for finding in found.values())


def test_the_expected_language_can_be_given(spec: Spec) -> None:
    found = by_kind(findings(loaded(rows()), measured(), spec_with(spec, audit__language="fr")))
    assert len(found["language"].rows) == 12


@pytest.mark.parametrize(("pii", "severity"), [("keep", "warning"), ("mask", "note")])
def test_personal_data_is_counted_and_never_shown(spec: Spec, pii: str, severity: str) -> None:
    personal = {"EMAIL": (3, 5), "CARD": (), "PHONE": ()}
    (found,) = findings(loaded(rows(), personal=personal), measured(), spec_with(spec, data__pii=pii))
    assert (found.kind, found.severity, found.rows) == ("personal data: email", severity, (3, 5))
    assert found.examples == ()


@pytest.mark.parametrize(("balance", "severity"), [("none", "warning"), ("oversample", "note")])
def test_a_rare_label_is_told_with_the_remedy(spec: Spec, balance: str, severity: str) -> None:
    kept = rows(label=["a"] * 10 + ["b"] * 2)
    seen = measured(doubts=Doubts(np.full(12, 0.1), np.arange(12) // 10, np.zeros(12, bool), np.ones(12, bool)))
    (found,) = findings(loaded(kept), seen, spec_with(spec, data__balance=balance))
    assert (found.kind, found.severity, found.rows) == ("imbalance", severity, (11, 12))
    assert "b 16.7%" in found.said


def test_ten_examples_are_shown_and_all_rows_named(spec: Spec) -> None:
    (found,) = findings(loaded(rows()), measured(tokens=np.full(12, 99)), spec)
    assert (len(found.rows), len(found.examples)) == (12, 10)
