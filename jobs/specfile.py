"""A spec from a YAML file with `--set` overrides; every fault becomes one line that says where and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import SpecError
from cluster.nodes.access import holds_password

from .spec import Spec, set_dotted

# YAML 1.1 takes `2e-4` for text (it wants `2.0e-4`); people write it all the same.
_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?[eE][-+]?\d+\s*")
# PyYAML lets the ValueError of an impossible date or number through, and the RecursionError of too deep a nesting.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


def load(path: Path, overrides: Iterable[str] = ()) -> Spec:
    """Read, override, validate. Paths in the spec are taken relative to the file. Raises SpecError."""
    tree = _read(path)
    for override in overrides:
        key, value = parse_override(override)
        set_dotted(tree, key, value)
    _absolute_paths(tree, path.resolve().parent)
    return parse(tree, where=str(path))


def dump(spec: Spec) -> str:
    """The resolved spec as YAML; `load` gives the same spec back."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False)  # ASCII: PyYAML folds a raw U+0085


def parse(tree: Any, where: str = "spec") -> Spec:
    """Validate a tree of plain values. Raises SpecError, also for a password: a spec is kept with every run."""
    for key, value in _texts(tree):
        if holds_password(value):
            mend = "take it out: the nodes' environment or files are to have it (docs/operations.md, Security)"
            raise SpecError(f"{key} holds a password", where=where, mend=mend)
    try:
        return Spec.model_validate(tree)
    except ValidationError as error:
        raise SpecError("; ".join(lines(error)), where=where, mend="`rehone schema` lists every key") from None


def _texts(tree: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree, with its dotted key."""
    if isinstance(tree, str):
        yield at, tree
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield from _texts(value, f"{at}.{key}" if at else str(key))


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=value`, with the value read as YAML. Raises SpecError."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise SpecError(f"--set {text!r} is not KEY=VALUE", mend="for example --set training.learning_rate=2e-4")
    return key.strip(), float(value) if _NUMBER.fullmatch(value) else _value(value)


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except _NOT_YAML:  # a value with a colon or a bracket in it is text
        return text


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("no such file", where=str(path), mend="`rehone init` writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", where=str(path)) from None
    try:
        tree = yaml.safe_load(text)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError(f"is not YAML: {problem}", where=at) from None
    if not isinstance(tree, dict):
        raise SpecError("is not a mapping of keys to values", where=str(path), mend="`rehone init` writes one")
    return tree


def _absolute_paths(tree: dict[str, Any], folder: Path) -> None:
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), str):
        path = folder / Path(data["source"]).expanduser()
        if is_path(data["source"]) or path.is_dir():
            data["source"] = str(path.resolve())
    if isinstance(data, dict) and isinstance(data.get("corrections"), str):
        data["corrections"] = str((folder / Path(data["corrections"]).expanduser()).resolve())
    evaluation = tree.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("anchor"), str):
        evaluation["anchor"] = str((folder / Path(evaluation["anchor"]).expanduser()).resolve())
    model = tree.get("base_model")
    if isinstance(model, str) and model.startswith((".", "~")):
        tree["base_model"] = str((folder / Path(model).expanduser()).resolve())


def is_path(source: str) -> bool:
    """A file or folder rather than a URL or a hub name such as `imdb` or `owner/name`."""
    if "://" in source:
        return False
    return source.startswith((".", "/", "~")) or Path(source).suffix in {".csv", ".tsv", ".jsonl", ".json", ".parquet"}


def lines(error: ValidationError) -> list[str]:
    """What is wrong with a spec, a line a fault."""
    made = []
    for fault in error.errors(include_url=False):
        at = tuple(part for part in fault["loc"])
        key = ".".join(str(part) for part in at)
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            made.append(f"unknown key {key!r}{_nearest(at)}")
        elif fault["type"] == "missing":
            made.append(f"{key!r} is missing")
        elif not key:
            made.append(message)
        else:
            got = "" if isinstance(fault["input"], (dict, BaseModel)) else f", got {fault['input']!r}"
            made.append(f"{key}: {message[0].lower()}{message[1:]}{got}"[:300])
    return made


def _nearest(at: tuple[int | str, ...]) -> str:
    """`, did you mean ...` for an unknown key: first among its siblings, then anywhere in the spec."""
    siblings = _fields(Spec, at[:-1])
    for names in (siblings, _all_keys(Spec)):
        by_last_name = {name.rsplit(".", 1)[-1]: name for name in reversed(names)}
        close = difflib.get_close_matches(str(at[-1]), by_last_name, n=1)
        if close:
            prefix = ".".join(str(p) for p in at[:-1])
            found = by_last_name[close[0]]
            return f", did you mean {f'{prefix}.{found}' if prefix and names is siblings else found!r}?"
    return f", known here: {', '.join(siblings)}" if siblings else ""


def _fields(model: Any, at: Iterable[int | str]) -> list[str]:
    for part in at:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = _model_in(field.annotation)
    return list(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    return next(
        (a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)), None
    )


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        below = _model_in(field.annotation)
        if below is not None:
            keys += _all_keys(below, f"{prefix}{name}.")
    return keys
