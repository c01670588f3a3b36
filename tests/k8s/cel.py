"""The rules that a custom resource's definition gives in CEL (`x-kubernetes-validations`), as the API server reads them.

A rule that names `oldSelf` judges a change: it is left out where there is nothing to compare with, in a new object or in
an item of a list that has no keys.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import celpy
from celpy.celtypes import ListType, StringType

Object = dict[str, Any]

_NOTHING = object()


def _split(text: StringType, by: StringType) -> ListType:
    return ListType(StringType(part) for part in text.split(by))


# Kubernetes' own addition to CEL, as far as the definitions at hand use it.
_ADDED = {"split": _split}


@functools.cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule), functions=_ADDED)


def faults(schema: Object, value: Any, old: Any = _NOTHING) -> list[str]:
    """What the rules say of a value with its defaults, and of its change from `old` when there was one."""
    return [f"{'.'.join(map(str, path)) or 'the object'}: {said}" for path, said in _walk(schema, value, old, ())]


def _walk(schema: Object, value: Any, old: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        changes = "oldSelf" in rule["rule"]
        if not (changes and old is _NOTHING) and not _holds(rule["rule"], value, old if changes else _NOTHING):
            yield path, rule.get("message", rule["rule"])
    if isinstance(value, dict):
        other = schema.get("additionalProperties")
        for key, inner in value.items():
            below = schema.get("properties", {}).get(key, other if isinstance(other, dict) else {})
            yield from _walk(below, inner, old.get(key, _NOTHING) if isinstance(old, dict) else _NOTHING, (*path, key))
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        for number, inner in enumerate(value):
            yield from _walk(schema.get("items", {}), inner, _same(inner, old, keys), (*path, number))


def _same(item: Any, old: Any, keys: list[str] | None) -> Any:
    """The item of the old list with the same keys."""
    if not keys or not isinstance(old, list):
        return _NOTHING
    return next((one for one in old if all(one.get(key) == item.get(key) for key in keys)), _NOTHING)


def _holds(rule: str, value: Any, old: Any) -> bool:
    """Whether it is true. One that cannot be evaluated, since it asks for a key that is not there, is not."""
    known = {"self": celpy.json_to_cel(value)}
    if old is not _NOTHING:
        known["oldSelf"] = celpy.json_to_cel(old)
    try:
        return bool(_program(rule).evaluate(known))
    except celpy.CELEvalError:
        return False
