from __future__ import annotations

import pytest

from cluster.errors import NotFoundError
from cluster.store.registry import CHALLENGER, CHAMPION, ModelVersion
from serve.many.catalogue import Catalogue

HERE = "text-classification on b"


class Names:
    """A registry of models on the base b, but for those called whole."""

    def __init__(self, clock: list[float]) -> None:
        self.named: dict[str, dict[str, int]] = {}
        self.questions = list[str]()
        self.clock, self.takes = clock, 0.0
        self.gone = set[str]()

    def aliases(self) -> dict[str, dict[str, int]]:
        self.questions.append("all")
        self.clock[0] += self.takes
        return self.named

    def get(self, model: str, version: int) -> ModelVersion:
        self.questions.append(f"{model} {version}")
        if model in self.gone:
            raise NotFoundError("it was deleted")
        tags = {"task": "text-classification", "base_model": "b", "method": "full" if model == "whole" else "lora"}
        return ModelVersion(model, version, "run", "x", tags, (), 1e9)


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def names(clock: list[float]) -> Names:
    return Names(clock)


@pytest.fixture
def catalogue(names: Names, clock: list[float]) -> Catalogue:
    return Catalogue(names, HERE, 1.0, lambda: clock[0])


def test_champions_on_this_base_are_known_and_each_version_is_asked_for_once(catalogue, names, clock) -> None:
    names.named = {
        "b": {CHAMPION: 2, CHALLENGER: 3},
        "a": {CHAMPION: 1},
        "new": {CHALLENGER: 1},
        "whole": {CHAMPION: 1},
    }
    catalogue.look()
    assert [(found.model, found.version) for found in catalogue.champions()] == [("a", 1), ("b", 2)]
    clock[0] += 2
    names.named["b"] = {CHAMPION: 3, "previous": 2}
    catalogue.look()
    assert names.questions == ["all", "b 2", "a 1", "whole 1", "all", "b 3"]
    assert catalogue.champion("b").aliases == (CHAMPION,)
    with pytest.raises(NotFoundError, match="no model 'new' is served here"):
        catalogue.champion("new")
    with pytest.raises(NotFoundError, match="'whole' is not served here: it is by method full, which shares no base"):
        catalogue.champion("whole")


def test_it_looks_no_more_than_it_has_time_for(catalogue, names, clock) -> None:
    for _ in range(20):
        catalogue.look()
        clock[0] += 0.1
    assert names.questions == ["all"] * 2
    clock[0] += 2
    names.takes = 3.0  # a registry of very many
    catalogue.look()
    clock[0] += 50
    catalogue.look()
    assert len(names.questions) == 3
    clock[0] += 10
    catalogue.look()
    assert len(names.questions) == 4


def test_a_model_that_is_deleted_as_it_looks_is_left_out(catalogue, names) -> None:
    names.named, names.gone = {"a": {CHAMPION: 1}, "b": {CHAMPION: 1}}, {"a"}
    catalogue.look()
    assert [found.model for found in catalogue.champions()] == ["b"]
