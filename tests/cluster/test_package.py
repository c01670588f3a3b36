from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.session import PROJECT
from cluster.submission import package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose data git ignores, beside something that it does not name."""
    made = tmp_path / "project"
    for name in ("data", "base", "notes"):
        (made / name).mkdir(parents=True)
        (made / name / "file.csv").write_text(name)
    (made / ".gitignore").write_text("data/\nnotes/\nbase/\n")
    (made / "helper.py").write_text("")
    return made


def spec(folder: Path, **tree: object) -> Path:
    (folder / "spec.yaml").write_text(yaml.safe_dump({"name": "p", **tree}))
    return folder / "spec.yaml"


def test_the_folder_goes_and_of_what_is_ignored_what_the_spec_names(folder: Path) -> None:
    made = package.project(spec(folder, data={"source": "data/file.csv"}, base_model="./base"))
    assert list(made.files) == [".gitignore", "base/file.csv", "data/file.csv", "helper.py", "spec.yaml"]
    assert (made.overrides, made.left, made.spec) == ((), (), "spec.yaml")


def test_paths_elsewhere_become_paths_in_the_package(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text("fixes")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rows.csv").write_text("rows")
    overrides = [f"data.corrections={tmp_path}/fixes.csv", "training.epochs=2"]
    made = package.project(spec(folder, data={"source": "../more"}), overrides)
    assert made.files["outside/0/more/rows.csv"].read_text() == "rows"
    assert made.files["outside/1/fixes.csv"].read_text() == "fixes"
    assert made.overrides == (
        *overrides,
        'data.source="./outside/0/more"',
        'data.corrections="./outside/1/fixes.csv"',
    )


def test_an_absolute_path_of_the_spec_is_expected_there_and_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shared.csv").write_text("")
    inside = folder / "data" / "file.csv"
    made = package.project(spec(folder, base_model=str(tmp_path / "shared.csv"), data={"source": str(inside)}))
    assert made.left == (str(tmp_path / "shared.csv"),)
    assert made.overrides == ('data.source="./data/file.csv"',)
    assert "shared.csv" not in "".join(made.files)


def test_what_only_looks_like_a_path_packs_nothing(folder: Path) -> None:
    made = package.project(spec(folder, labels=[".", "/", "notes", ".."], at=".", up="..", root="/", note="x" * 300))
    assert not [name for name in made.files if name.startswith(("notes", "data", "base", "outside"))]


def test_an_override_with_another_source_is_the_one_that_counts(folder: Path) -> None:
    made = package.project(spec(folder, data={"source": "data/file.csv"}), ["data.source=notes/file.csv"])
    assert "notes/file.csv" in made.files
    assert "data/file.csv" not in made.files
    assert made.overrides[-1] == 'data.source="./notes/file.csv"'
    made = package.project(spec(folder, data={"source": "data/file.csv"}), ["data={source: notes/file.csv}"])
    assert "notes/file.csv" in made.files


def test_what_may_not_be_sent_stops_it_be_it_named_by_the_spec(folder: Path) -> None:
    (folder / ".env").write_text("")
    with pytest.raises(UserError, match=r"\.env \(a secret"):
        package.project(spec(folder))
    (folder / ".rehoneignore").write_text(".env\n")
    package.project(spec(folder))
    with pytest.raises(UserError, match=r"\.env \(a secret"):
        package.project(spec(folder, data={"source": ".env"}))


def test_a_whole_that_is_too_large_names_the_largest(folder: Path) -> None:
    (folder / "big.txt").write_text("x" * 5000)
    with pytest.raises(UserError, match=r"the limit is .*; largest: big\.txt, "):
        package.project(spec(folder), limit=4000)


@pytest.mark.parametrize("name", ["jobs/__init__.py", "rehone.py", "cluster.py"])
def test_a_module_that_would_hide_ours_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    with pytest.raises(UserError, match=f"would hide rehone's own code there: {name}"):
        package.project(spec(folder))
    if "/" in name:
        (folder / name).rename(folder / "jobs" / "nightly.yaml")
        package.project(spec(folder))


def test_a_checkout_of_rehone_may_send_itself() -> None:
    at_its_top = PROJECT / "pyproject.toml"  # the packer takes any file for a spec
    assert "jobs/__init__.py" in package.project(at_its_top).files


def test_the_same_project_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first = package.write(package.project(spec(folder)), tmp_path / "1.zip")
    (folder / "helper.py").touch()
    assert package.write(package.project(spec(folder)), tmp_path / "2.zip") == first
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    (folder / "helper.py").write_text("changed")
    assert package.write(package.project(spec(folder)), tmp_path / "3.zip") != first
    with zipfile.ZipFile(tmp_path / "3.zip") as archive:
        assert archive.read("helper.py") == b"changed"


def test_a_spec_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        package.project(tmp_path / "none.yaml")


@given(st.text())
def test_no_text_in_a_spec_breaks_the_search_for_paths(tmp_path_factory, text: str) -> None:
    assert package._is_here(text, Path("/nowhere/at/all")) in {True, False}


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda kids: st.dictionaries(st.text(), kids) | st.lists(kids))
)
def test_every_leaf_of_a_tree_is_found_once(tree: object) -> None:
    def count(value: object) -> int:
        return sum(map(count, value.values())) if isinstance(value, dict) else 1

    assert len(list(package._leaves(tree))) == count(tree)
