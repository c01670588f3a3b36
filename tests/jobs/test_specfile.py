from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.errors import SpecError
from jobs import specfile
from jobs.template import TEMPLATE

BASE = {"name": "x", "base_model": "m", "data": {"source": "a.csv"}}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (BASE | {"trainig": {}}, "unknown key 'trainig', did you mean 'training'?"),
        (BASE | {"training": {"learningrate": 1}}, "did you mean 'training.learning_rate'?"),
        (BASE | {"learning_rate": 1}, "did you mean 'training.learning_rate'?"),
        (BASE | {"zzzz": 1}, "known here: name, task, base_model"),
        ({"name": "x"}, "'base_model' is missing; 'data' is missing"),
        (BASE | {"training": {"epochs": "many"}}, "training.epochs: input should be a valid integer"),
        (BASE | {"sweep": {"search": {"method.rank": {"unifrm": [1, 2]}}}}, "unknown key"),
        ([], "input should be"),
    ],
)
def test_each_fault_is_one_line_with_its_mend(tree, said) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.parse(tree, where="x.yaml")
    line = str(caught.value)
    assert said.lower() in line.lower()
    assert "\n" not in line
    assert line.startswith("x.yaml: ")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"data": {"source": "postgresql://me:planted@db/rows"}}, "data.source"),
        ({"card": {"limits": ["see https://me:planted@example.com"]}}, "card.limits.0"),
    ],
)
def test_a_password_is_refused_and_not_repeated(values, key) -> None:
    with pytest.raises(SpecError, match=f"x.yaml: {key} holds a password") as caught:
        specfile.parse(BASE | values, where="x.yaml")
    assert "planted" not in str(caught.value)


@given(st.text())
def test_an_override_is_read_or_refused_and_never_anything_else(text: str) -> None:
    try:
        key, _ = specfile.parse_override(text)
    except SpecError as error:
        assert "KEY=VALUE" in str(error)
    else:
        assert key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=2e-4", 2e-4),
        ("a= -1.5E3 ", -1500.0),
        ("a=3", 3),
        ("a=[1, x]", [1, "x"]),
        ("a=x=y", "x=y"),
        ("a=null", None),
        ('a="5"', "5"),
        ("a=nan", "nan"),
        ("a=2020-99-99", "2020-99-99"),
        ("a=0x_", "0x_"),
        ("a=b: c: d", "b: c: d"),
    ],
)
def test_values_are_yaml(text: str, value: object) -> None:
    assert specfile.parse_override(text)[1] == value


def test_overrides_win_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "spec.yaml"
    file.parent.mkdir()
    file.write_text("name: x\nbase_model: ./model\ndata: {source: ../data.csv}\n")
    spec = specfile.load(file, ["training.learning_rate=2e-4", "method.rank=4"])
    assert (spec.training.learning_rate, spec.method.rank) == (2e-4, 4)
    assert spec.data.source == str(tmp_path / "data.csv")
    assert spec.base_model == str(tmp_path / "deep" / "model")


def test_a_folder_beside_the_file_needs_no_dot(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "spec.yaml"
    file.write_text("name: x\nbase_model: m\ndata: {source: data}\n")
    assert specfile.load(file).data.source == str(tmp_path / "data")
    assert specfile.load(file, ["data.source=imdb"]).data.source == "imdb"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", ":1: is not YAML"),
        ("- 1", "is not a mapping"),
        ("", "is not a map"),
        ("a: \x00", "is not YAML: unacceptable character"),
        ("a: 2020-99-99", "is not YAML: month must be in"),
        ("[" * 5000, "is not YAML"),
        ("1: 2", "keys should be strings"),
    ],
)
def test_a_file_that_holds_no_spec(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=said) as caught:
        specfile.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("nowhere.yaml", "no such file"), (".", "cannot be read")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        specfile.load(tmp_path / name)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "data.input": st.text(min_size=1, max_size=20),
        "data.labels": st.lists(st.text(max_size=8), min_size=2, max_size=5, unique=True),
        "data.near_duplicates": st.none() | st.floats(0.01, 1),
        "training.learning_rate": st.floats(1e-7, 10),
        "training.zero_stage": st.sampled_from(["auto", 0, 1, 2, 3]),
        "method.rank": st.integers(1, 64),
        "method.target_modules": st.just("all-linear") | st.lists(st.text(max_size=8), max_size=3),
        "sweep.search": st.dictionaries(
            st.sampled_from(["method.rank", "training.learning_rate"]),
            st.fixed_dictionaries({"choice": st.lists(st.integers(1, 64), min_size=1, max_size=3)}),
            max_size=2,
        ),
    },
)


@given(VALUES)
@example({"data.input": "\x85"})  # a line break to YAML
def test_what_is_dumped_loads_as_the_same_spec(values: dict[str, Any]) -> None:
    spec = specfile.parse(BASE | {"data": {"source": "/a.csv"}}).with_values(values)
    back = specfile.parse(yaml.safe_load(specfile.dump(spec)))
    assert back == spec
    assert back.hash == spec.hash


def test_the_template_is_a_valid_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(TEMPLATE)
    assert specfile.load(tmp_path / "spec.yaml").name == "my-project"
