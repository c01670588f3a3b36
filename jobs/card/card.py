"""The model card of a version: Markdown with the Hub's front matter, and a page of it.

Sections and their order follow Mitchell et al. 2019 and the Hub's model-card conventions; the front matter is
huggingface_hub's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.specfile import is_path

from . import page, sections
from .facts import Facts, Told

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def make(facts: Facts, told: Told | None = None) -> ModelCard:
    """The card; `told` is what became of the version, None while it is being made."""
    from huggingface_hub import ModelCard

    body = "\n\n".join(f"## {title}\n\n{section(facts, told)}" for title, section in _SECTIONS.items())
    head = f"# {_title(facts, told)}\n\n{_summary(facts, told)}"
    return ModelCard(f"---\n{_front(facts).to_yaml()}\n---\n\n{head}\n\n{body}\n")


def html(card: ModelCard, folder: Path) -> str:
    """The page of a card, with the pictures of the version in `folder` inside."""
    title = card.text.strip().partition("\n")[0].removeprefix("# ")
    return page.html(card.text, title, folder)


def write(folder: Path, facts: Facts) -> None:
    """`card.md` and `card.html` of a version that is being made."""
    made = make(facts)
    (folder / "card.md").write_text(made.content, encoding="utf-8")
    (folder / "card.html").write_text(html(made, folder), encoding="utf-8")


_SECTIONS: Mapping[str, Callable[[Facts, Told | None], str]] = {
    "Intended use": lambda facts, _: sections.intended_use(facts),
    "Data": lambda facts, _: sections.data(facts),
    "Method and parameters": lambda facts, _: sections.method(facts),
    "Scorecard": lambda facts, _: sections.scorecard(facts),
    "Slices": lambda facts, _: sections.slices(facts),
    "Forgetting": lambda facts, _: sections.forgetting(facts),
    "Verdict": lambda _, told: sections.verdict(told),
    "Lineage": sections.lineage,
    "Carbon and cost": lambda facts, _: sections.carbon(facts),
}


def _title(facts: Facts, told: Told | None) -> str:
    return f"{facts.spec.name}, " + (f"version {told.version.version}" if told else f"run {facts.manifest['run']}")


def _summary(facts: Facts, told: Told | None) -> str:
    spec, into = facts.spec, f" into {', '.join(facts.data.listed)}" if facts.data.listed else ""
    metric = spec.evaluation.metric
    scores = (
        f"{metric} {card.metrics[metric].value:.3f} on {card.rows} {name} test rows"
        for name, card in facts.scorecards.items()
    )
    aliases = f" It is {' and '.join(told.version.aliases)}." if told and told.version.aliases else ""
    return page.text(f"{spec.task.capitalize()}{into}: {', '.join(scores)}.{aliases}")


def _front(facts: Facts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    spec = facts.spec
    names = dict.fromkeys(metric for card in facts.scorecards.values() for metric in card.metrics)
    return ModelCardData(
        language=spec.audit.language,
        license=facts.card.licence,
        base_model=spec.base_model if _HUB_NAME.fullmatch(spec.base_model) else None,
        datasets=None if is_path(spec.data.source) else [spec.data.source],
        library_name="transformers" if spec.method.name == "full" else "peft",
        pipeline_tag=spec.task,
        tags=["rehone", spec.method.name],
        metrics=list(names),
        model_name=spec.name,
        eval_results=_results(facts),
    )


def _results(facts: Facts) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=facts.spec.task,
            dataset_type=facts.data.name,
            dataset_name=f"{facts.data.name}, {part} rows",
            dataset_split="test",
            dataset_revision=facts.data.version,
            metric_type=metric,
            metric_value=value.value,
        )
        for part, card in facts.scorecards.items()
        for metric, value in card.metrics.items()
    ]
