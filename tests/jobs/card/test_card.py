"""The card from facts made by hand; that publishing writes one is tested in test_training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cluster.settings import Settings
from cluster.store.registry import ModelVersion
from jobs.card import card
from jobs.card.facts import Facts, Told
from jobs.data import preparation
from jobs.evaluation.calibration import Calibration
from jobs.evaluation.footprint import Footprint, Latency
from jobs.evaluation.robustness import Robustness
from jobs.evaluation.scorecard import score
from jobs.evaluation.slices import Gap, Slice
from jobs.forgetting.forgetting import Attempt, Forgetting, Measured, Recipe
from jobs.pipeline import Place
from jobs.spec import CardSpec, Spec
from jobs.training import energy

MANIFEST = {
    "parent": None,
    "run": "abc123",
    "job": None,
    "code": "0f1e2d",
    "packages": {"python": "3.11.1", "torch": "2.13.0"},
    "machine": {"threads": 2},
}
VERDICT = {
    "promote": True,
    "reasons": ["accuracy 0.750 against 0.500"],
    "checks": [{"rule": "better", "on": "old", "passed": True, "judged": True, "said": "p 0.01 | alone"}],
}


@pytest.fixture
def facts(spec: Spec, place: Place) -> Facts:
    """As little as a version can have."""
    made = preparation.prepare(spec, place.storage)
    cards = {"old": score(["a", "b", "a", "b"], ["a", "b", "a", "a"], ["a", "b"], resamples=20)}
    return Facts(spec, spec.card, MANIFEST, made, (), cards, ())


def told(facts: Facts) -> Told:
    version = ModelVersion("tiny", 3, "abc123", "", {}, ("champion",), 0.0)
    return Told(version, (2, 1), VERDICT, ("2026-01-01 decision on window 5",))


def section(made: ModelCard, title: str) -> str:
    return made.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_what_is_not_known_is_said_and_no_section_is_left_out(facts: Facts) -> None:
    made = card.make(facts)
    titles = [line.removeprefix("## ") for line in made.text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Intended use",
        "Data",
        "Method and parameters",
        "Scorecard",
        "Slices",
        "Forgetting",
        "Verdict",
        "Lineage",
        "Carbon and cost",
    ]
    assert section(made, "Intended use").count("not stated") == 4
    assert "Audit: not measured" in section(made, "Data")
    assert section(made, "Scorecard").lower().count("not measured") == 3
    for title in ("Slices", "Forgetting", "Carbon and cost"):
        assert "Not measured" in section(made, title)
    assert "Not judged yet" in section(made, "Verdict")


def test_the_front_matter_is_what_the_hub_reads(facts: Facts) -> None:
    stated = CardSpec(intended_use="Sorting tweets.", licence="apache-2.0")
    hub = facts.spec.with_values({"base_model": "sentence-transformers/all-MiniLM-L6-v2", "audit.language": "en"})
    made = ModelCard(card.make(replace(facts, card=stated, spec=hub)).content)
    assert (made.data.license, made.data.language, made.data.library_name) == ("apache-2.0", "en", "peft")
    assert made.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert made.data.datasets is None
    accuracy = next(result for result in made.data.eval_results if result.metric_type == "accuracy")
    assert (accuracy.metric_value, accuracy.dataset_revision) == (0.75, facts.data.version)
    assert "Sorting tweets." in section(made, "Intended use")


def test_a_base_model_that_is_no_hub_name_is_only_in_the_text(facts: Facts) -> None:
    made = card.make(facts)
    assert made.data.base_model is None
    assert facts.spec.base_model in section(made, "Method and parameters")


def test_all_that_was_measured_is_in_it(facts: Facts) -> None:
    attempts = (
        Attempt(Recipe("as the spec says", 0.0), Measured(0.6, 0.8), 0.2, 10, 5.0, "r1"),
        Attempt(Recipe("replay", 1.0), Measured(0.79, 0.81), 0.01, 20, 7.0, "r2"),
    )
    slices = (Slice("by source", "web | app", 40, 0.5, 0.4, 0.6, {"a": 0.5, "b": 0.5}, enough=True),)
    gaps, sure = (Gap("by source", "x", "y", 0.3, "a", 0.2, 0.04),), Calibration(0.031, 0.052, ())
    known = replace(
        facts,
        manifest=MANIFEST | {"parent": 2, "job": "tiny-retrain-1-5"},
        scorecards={"old": replace(facts.scorecards["old"], calibration=sure, slices=slices, gaps=gaps)},
        robustness=(Robustness("typos", 100, 90, 0.9, 0.8, 0.12),),
        footprint=Footprint((Latency(1, 12.3, 20.1),), 2**20, 2**19),
        forgetting=Forgetting("accuracy", "the old test rows", 24, 0.02, Measured(0.8, None), attempts, 1),
        audit={
            "dataset": "older",
            "rows": 10,
            "kept": 9,
            "findings": [{"severity": "warning", "kind": "label", "said": "doubtful", "rows": [1, 2]}],
        },
        seconds=12.0,
        energy=energy.used(12.0, facts.spec.scaling, Settings(cpu_watts=10, grid_grams=400, cpu_hour_price=0.05)),
    )
    made = card.make(known, told(facts))
    assert made.text.strip().startswith("# tiny, version 3\n")
    assert "It is champion." in made.text
    assert "| warning | label | 2 | doubtful |" in section(made, "Data")
    assert "of its ancestor older" in section(made, "Data")
    assert "| typos | 100 | 90 | 0.900 | 0.800 | 12.0% |" in section(made, "Scorecard")
    assert "| 1 | 12.3 | 20.1 |" in section(made, "Scorecard")
    assert r"| by source web \| app | 40 | 0.500 | [0.400, 0.600] |  |" in section(made, "Slices")
    assert "| replay | 1 | 0 | 1 | 0.790 | +1.0 | 0.810 | this version |" in section(made, "Forgetting")
    assert r"| better | old | passed | p 0.01 \| alone |" in section(made, "Verdict")
    assert "version 2, from version 1" in section(made, "Lineage")
    assert "- 2026-01-01 decision on window 5" in section(made, "Lineage")
    assert "`tiny-retrain-1-5`" in section(made, "Lineage")
    assert "| energy | 0.0667 Wh |" in section(made, "Carbon and cost")
    assert "not measured" not in made.text.lower()


def test_the_page_has_its_pictures_inside(facts: Facts, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    names = ("old-confusion", "learning-curve", "new-confusion")
    for name in names:
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"picture")
    shown = replace(facts, pictures=tuple(f"pictures/{name}.png" for name in names))
    card.write(tmp_path, shown)
    page = (tmp_path / "card.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # there are no new rows
    assert "<title>tiny, run abc123</title>" in page
    assert "pictures/learning-curve.png" in (tmp_path / "card.md").read_text()
