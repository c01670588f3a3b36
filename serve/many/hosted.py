"""One model on a replica: who follows its aliases, who answers for it, and what it shares with the others there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import RehoneError
from cluster.store.registry import ModelVersion
from jobs.data import intake
from jobs.models import manifest
from jobs.spec import CanarySpec, ServingSpec, Spec
from serve.engines.batching import Batcher, Lane
from serve.engines.engine import Engine
from serve.log.spool import Spool
from serve.service import Service
from serve.tracing import Trace
from serve.versions.follower import Aliases, AliasFollower
from serve.versions.observer import Observer
from serve.versions.shadow import Count, uncounted
from serve.versions.traffic import Traffic


class BrokenError(RehoneError):
    """A version cannot be loaded, or disagrees with its trainer."""


Admit = Callable[[ModelVersion, Path], Engine]
"""Loads a version's files; raises where it does not answer as its trainer did."""


@dataclass(frozen=True)
class Replica:
    """What all models of a replica share. `batches` are champions', `trials` canaries'; `count` hears of shadows."""

    aliases: Aliases
    admit: Admit
    batches: Batcher
    trials: Batcher
    spool: Spool
    serving: ServingSpec
    trace: Trace
    count: Count = uncounted


class Hosted:
    """A model of this name. It has no engine before its `follower` has looked."""

    def __init__(
        self, model: str, replica: Replica, admit: Admit, take: Callable[[str], str], canary: CanarySpec
    ) -> None:
        # The closures hold the follower alone, so that a model which is let go leaves memory at once.
        follower = AliasFollower(replica.aliases, model, replica.serving.poll_seconds, admit)
        champion = Lane(lambda: follower.engine, replica.batches.lane(lambda: follower.engine))
        self.model, self.follower, traffic = model, follower, None
        if canary.share:  # without one none is loaded
            trial = Lane(lambda: follower.canary, replica.trials.lane(lambda: follower.canary))
            traffic = Traffic(canary, champion, trial, Observer(model, replica.spool.append), replica.count)
            follower.follow_canary(lambda version, reason: traffic.refused(version.version, reason))
        self.service = Service(
            model,
            replica.spool,
            champion.engine,
            champion.answer,
            take=take,
            explain_steps=replica.serving.explain_steps,
            traffic=traffic,
            trace=replica.trace,
        )


def own(spec: Spec, replica: Replica) -> Hosted:
    """The model that the server was started for."""
    return Hosted(spec.name, replica, replica.admit, intake.taker(spec), spec.serving.canary)


def other(champion: ModelVersion, replica: Replica) -> Hosted:
    """The model of this champion, loaded, as the specs that its versions were trained by say.

    Raises BrokenError where its versions are at fault, and what the registry raises.
    """
    takes = dict[int, Callable[[str], str]]()

    def admit(version: ModelVersion, folder: Path) -> Engine:
        with _blamed():
            takes[version.version] = intake.taker(_spec(folder))
            return replica.admit(version, folder)

    def take(given: str) -> str:
        assert follower.engine is not None  # or nobody asks
        return takes[follower.engine.version.version](given)

    folder = replica.aliases.download(champion)
    with _blamed():
        canary = _spec(folder).serving.canary
    made = Hosted(champion.model, replica, admit, take, canary)
    follower = made.follower
    follower.look_first()
    return made


def _spec(folder: Path) -> Spec:
    return manifest.spec(manifest.read(folder))


@contextmanager
def _blamed() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Whatever is wrong with a version's files.
        raise BrokenError(str(error)) from error
