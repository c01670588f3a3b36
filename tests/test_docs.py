"""The documents against the code: names that exist, commands that are there, keys that are current."""

from __future__ import annotations

import importlib
import itertools
import re
import runpy
from functools import reduce
from pathlib import Path

import pytest

from examples import demo
from jobs import reference, specfile
from tests.test_rehone import VERBS

ROOT = Path(__file__).parents[1]
OURS = ("cluster", "jobs", "serve", "monitoring", "examples", "bench", "tests", "docs", "k8s")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
ARROW = re.compile(r'^    (\S+) -- "(\S+)" --> (\S+)$', re.MULTILINE)
TEXTS = {path.relative_to(ROOT): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}


def resolve(name: str) -> object:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[cut:], module)
    raise AssertionError(f"no module of {name}")


@pytest.mark.parametrize("arrow", ARROW.findall(ARCHITECTURE), ids=" ".join)
def test_every_box_and_every_type_of_the_picture_exists(arrow: tuple[str, str, str]) -> None:
    start, carried, end = map(resolve, arrow)
    assert callable(start)
    assert callable(end)
    assert isinstance(carried, type)


def test_the_picture_is_one_chain_without_a_gap() -> None:
    arrows = ARROW.findall(ARCHITECTURE)
    assert len(arrows) == ARCHITECTURE.count("-->")
    assert all(before[2] == after[0] for before, after in itertools.pairwise(arrows))


def test_the_spec_reference_is_current() -> None:
    assert TEXTS[Path("docs/spec.md")] == reference.markdown() + "\n"


def test_the_tree_is_current_and_every_file_says_its_job() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "tree.py"))["markdown"]()
    assert TEXTS[Path("docs/tree.md")] == made + "\n"
    assert "` |  |" not in made


@pytest.mark.parametrize("path", TEXTS)
def test_every_verb_that_a_document_types_exists(path: Path) -> None:
    typed = set(re.findall(r"^ {4}rehone ([a-z]+)", TEXTS[path], re.MULTILINE))
    typed |= set(re.findall(r"`rehone ([a-z]+)[^`]*`", TEXTS[path]))
    assert typed <= {command.split()[0] for command in VERBS}


@pytest.mark.parametrize("path", TEXTS)
def test_every_file_that_a_document_links_exists(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[path]):
        assert "://" in target or (ROOT / path.parent / target).exists(), target


def test_every_folder_in_the_readme_exists() -> None:
    named = re.findall(r"^\| `([a-z0-9/.]+)` \|", TEXTS[Path("README.md")], re.MULTILINE)
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir()} & {f"{name}/" for name in OURS}
    assert set(named) == folders | {"rehone.py"}


def test_examples_are_short_and_valid() -> None:
    for path in (ROOT / "examples").glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 40
        specfile.load(path)
    specfile.load(demo.SPEC, demo.Sizes().overrides)
