from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from serve.engines import engine
from serve.versions.follower import AliasFollower

from . import fakes


def follower(tmp_path: Path, **golden: float) -> tuple[fakes.FakeRegistry, AliasFollower]:
    folders = {n: fakes.write_version(tmp_path / str(n), 0.5 + n / 10, golden.get(f"v{n}")) for n in (1, 2, 3)}
    registry = fakes.FakeRegistry(folders)
    return registry, AliasFollower(registry, "m", 0.01, lambda v, path: engine.load(v, path, fakes.load))


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not until() and time.monotonic() < end:
        time.sleep(0.01)
    assert until()


def serving(made: AliasFollower) -> int:
    assert made.engine is not None
    return made.engine.version.version


def test_it_loads_the_champion_and_follows_the_alias(tmp_path: Path) -> None:
    registry, made = follower(tmp_path)
    made.start()
    assert serving(made) == 1
    registry.champion = 3
    wait(lambda: serving(made) == 3)
    registry.champion = 1
    wait(lambda: serving(made) == 1)
    made.stop()


def test_a_version_that_fails_takes_no_traffic_and_is_named(tmp_path: Path) -> None:
    registry, made = follower(tmp_path, v2=0.1)
    made.start()
    registry.champion = 2
    wait(lambda: 2 in made.failed)
    assert serving(made) == 1
    assert "away from its trainer" in made.failed[2]
    registry.champion = 3
    wait(lambda: serving(made) == 3)
    made.stop()


def test_a_registry_that_is_away_for_a_moment_changes_nothing(tmp_path: Path, caplog) -> None:
    registry, made = follower(tmp_path)
    made.start()
    registry.away = True
    wait(lambda: "could not be asked" in caplog.text)
    registry.away, registry.champion = False, 2
    wait(lambda: serving(made) == 2)
    made.stop()


def test_files_that_cannot_be_fetched_are_asked_for_again(tmp_path: Path, caplog) -> None:
    registry, made = follower(tmp_path)
    made.start()
    registry.files_away, registry.champion = True, 2
    wait(lambda: "the object store is away" in caplog.text)
    assert (serving(made), made.failed) == (1, {})
    registry.files_away = False
    wait(lambda: serving(made) == 2)
    made.stop()


def test_a_first_version_that_fails_is_said_at_once(tmp_path: Path) -> None:
    _, made = follower(tmp_path, v1=0.1)
    with pytest.raises(ClusterError, match="m version 1"):
        made.start()


def test_a_replica_that_starts_under_a_broken_champion_serves_the_one_before_it(tmp_path: Path) -> None:
    registry, made = follower(tmp_path, v2=0.1)
    registry.champion, registry.previous = 2, 1
    made.start()
    assert serving(made) == 1
    assert "away from its trainer" in made.failed[2]
    registry.champion = 3
    wait(lambda: serving(made) == 3)
    made.stop()


def on_trial(made: AliasFollower) -> int | None:
    return None if made.canary is None else made.canary.version.version


def test_a_canary_is_loaded_beside_the_champion_while_its_alias_is_set(tmp_path: Path) -> None:
    registry, made = follower(tmp_path)
    made.start()
    registry.canary = 2
    time.sleep(0.05)
    assert made.canary is None  # nobody has asked for it
    refused: list[int] = []
    made.follow_canary(lambda version, _: refused.append(version.version))
    wait(lambda: on_trial(made) == 2)
    registry.canary = 3
    wait(lambda: on_trial(made) == 3)
    assert serving(made) == 1
    registry.canary = None
    wait(lambda: on_trial(made) is None)
    made.stop()
    assert (refused, made.failed) == ([], {})


def test_a_canary_that_becomes_champion_is_not_loaded_again(tmp_path: Path) -> None:
    registry, made = follower(tmp_path)
    made.follow_canary(lambda *_: None)
    made.look()
    registry.canary = 2
    made.look_for_canary()
    assert made.canary is not None
    loaded = made.canary.predictor
    registry.champion, registry.files_away = 2, True
    made.look()
    assert (serving(made), made.canary) == (2, None)
    assert made.engine is not None and made.engine.predictor is loaded
    made.look_for_canary()
    assert made.canary is None


def test_a_canary_that_fails_to_load_takes_no_traffic_and_is_said_once_a_trial(tmp_path: Path) -> None:
    registry, made = follower(tmp_path, v2=0.1)
    refused: list[tuple[int, str]] = []
    made.follow_canary(lambda version, reason: refused.append((version.version, reason)))
    made.look()
    registry.canary = 3
    made.look_for_canary()
    registry.canary = 2
    for _ in range(3):
        made.look_for_canary()
        assert (serving(made), made.canary) == (1, None)
    ((version, reason),) = refused
    assert version == 2
    assert "away from its trainer" in reason
    registry.canary = None
    made.look_for_canary()
    registry.canary = 2
    made.look_for_canary()
    assert refused == 2 * [(2, reason)]  # another trial, which must end too
