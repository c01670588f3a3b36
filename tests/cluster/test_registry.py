"""Tracking and registry on MLflow's real SQLite store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.errors import ClusterError, NotFoundError, UserError
from cluster.settings import Settings
from cluster.store.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from cluster.store.tracking import Tracker, tracking_uri


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(storage=str(tmp_path_factory.mktemp("mlflow")))


def register(settings: Settings, model: str, tmp_path) -> int:
    (tmp_path / "files").mkdir(exist_ok=True)
    (tmp_path / "files" / "weights").write_text(model)
    with Tracker(settings, model).run("train", {"rate": 0.1}, {"kind": "test"}) as run:
        source = run.log_folder(tmp_path / "files", "model")
        run.log_metrics({"loss": 0.5}, step=1)
        run.log_metrics({"loss": 0.25}, step=2)
    return Registry(settings).register(model, run.id, source, {"dataset": "abc"}).version


def aliases(registry: Registry, model: str) -> dict[str, int]:
    return {alias: v.version for v in registry.versions(model) for alias in v.aliases}


def test_a_run_keeps_its_metrics_by_step_and_its_end(settings: Settings, tmp_path) -> None:
    register(settings, "runs", tmp_path)
    run = Tracker(settings, "runs").runs()[0]
    assert (run["status"], run["params"]["rate"], run["tags"]["kind"]) == ("FINISHED", "0.1", "test")
    assert Tracker(settings, "runs").open(run["id"]).history("loss") == [(1, 0.5), (2, 0.25)]


def test_a_run_that_raised_is_marked_failed(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), Tracker(settings, "failing").run("train", {}, {}):
        _ = 1 / 0
    assert Tracker(settings, "failing").runs()[0]["status"] == "FAILED"


def test_an_unknown_run_is_said(settings: Settings) -> None:
    with pytest.raises(ClusterError, match="MLflow has no run nope"):
        Tracker(settings, "runs").open("nope")


def test_versions_move_between_aliases(settings: Settings, tmp_path) -> None:
    registry = Registry(settings)
    first, second = register(settings, "walk", tmp_path), register(settings, "walk", tmp_path)
    assert aliases(registry, "walk") == {CHALLENGER: second}
    registry.promote("walk", first)
    registry.promote("walk", second)
    assert aliases(registry, "walk") == {PREVIOUS: first, CHAMPION: second}
    registry.promote("walk", second)
    assert aliases(registry, "walk") == {PREVIOUS: first, CHAMPION: second}
    registry.promote("walk", registry.previous("walk").version)
    assert aliases(registry, "walk") == {PREVIOUS: second, CHAMPION: first}


def test_a_dismissed_challenger_stays_a_version(settings: Settings, tmp_path) -> None:
    registry, version = Registry(settings), register(settings, "lost", tmp_path)
    registry.tag("lost", version, {"verdict": "no"})
    registry.dismiss("lost")
    registry.dismiss("lost")
    assert registry.find("lost", CHALLENGER) is None
    assert registry.get("lost", version).tags["verdict"] == "no"


def test_files_of_a_version_come_back(settings: Settings, tmp_path) -> None:
    registry = Registry(settings)
    version = registry.get("files", register(settings, "files", tmp_path))
    assert (registry.download(version) / "weights").read_text() == "files"


def test_what_is_not_there_gets_one_line(settings: Settings) -> None:
    registry = Registry(settings)
    assert registry.versions("unknown") == []
    for ask in (registry.champion, registry.previous):
        with pytest.raises(NotFoundError, match="model 'unknown' has no"):
            ask("unknown")
    with pytest.raises(NotFoundError, match="no version 4"):
        registry.promote("unknown", 4)


@pytest.mark.parametrize("name", ["it's", "a/b", "a:b", " ", 'say "x"'])
def test_a_name_that_no_model_can_have_is_one_that_is_not_there(settings: Settings, name: str) -> None:
    registry = Registry(settings)
    assert registry.versions(name) == []
    assert registry.find(name, CHAMPION) is None
    registry.dismiss(name)
    with pytest.raises(NotFoundError, match="has no version 1"):
        registry.promote(name, 1)


def test_a_list_of_models_names_each_once(settings: Settings, tmp_path) -> None:
    for _ in range(2):
        register(settings, "listed", tmp_path)
    assert Registry(settings).models().count("listed") == 1


def test_an_object_store_needs_a_server() -> None:
    with pytest.raises(UserError, match="needs an MLflow server"):
        tracking_uri(Settings(storage="s3://bucket"))
    assert tracking_uri(Settings(storage="s3://bucket", tracking_uri="http://m")) == "http://m"


def test_one_file_of_a_version_is_read_alone(settings: Settings, tmp_path) -> None:
    registry = Registry(settings)
    version = registry.get("one-file", register(settings, "one-file", tmp_path))
    assert registry.read(version, "weights") == b"one-file"
    with pytest.raises(NotFoundError, match=r"one-file version 1 has no card\.html"):
        registry.read(version, "card.html")
    served = replace(version, source=f"runs:/{version.run}/model")  # as from a store elsewhere: by a copy
    assert registry.read(served, "weights") == b"one-file"
    with pytest.raises(NotFoundError):
        registry.read(served, "card.html")


def test_aliases_of_all_models_are_one_question_a_page(settings: Settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cluster.store.registry._PAGE", 2)
    registry = Registry(settings)
    for model in ("page-a", "page-b", "page-c"):
        registry.promote(model, register(settings, model, tmp_path))
    registry.register("page-d", registry.get("page-a", 1).run, "file:///x", {})
    found = registry.aliases()
    assert {model: found[model] for model in found if model.startswith("page-")} == {
        "page-a": {CHAMPION: 1},
        "page-b": {CHAMPION: 1},
        "page-c": {CHAMPION: 1},
        "page-d": {CHALLENGER: 1},
    }
    assert set(found) < set(registry.models())


def test_a_retired_model_has_no_champion_and_can_come_back(settings: Settings, tmp_path) -> None:
    registry = Registry(settings)
    first, second = register(settings, "old", tmp_path), register(settings, "old", tmp_path)
    registry.promote("old", first)
    registry.promote("old", second)
    assert registry.retire("old").version == second
    assert aliases(registry, "old") == {PREVIOUS: second}
    with pytest.raises(NotFoundError, match="'old' has no champion"):
        registry.retire("old")
    registry.promote("old", registry.previous("old").version)
    assert registry.champion("old").version == second
