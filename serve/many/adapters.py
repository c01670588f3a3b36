"""Many models on one base: the one that the server was started for, and others of the registry as they are asked for.

As many of the others as `serving.adapters.most` are held, in `most_mib` of memory where that is set; the one longest
unused makes room. Whoever still works with one that made room keeps it in memory until it is done
(`jobs/models/adapters.py`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.errors import NotFoundError
from cluster.store.registry import CHAMPION, ModelVersion
from jobs.models.predictor import Predictor
from jobs.spec import AdaptersSpec
from serve.engines.engine import Engine
from serve.node import until_tick
from serve.service import NotReadyError, Service

from . import hosted
from .catalogue import Catalogue
from .hosted import BrokenError, Hosted, Replica
from .models import Listed, loaded, unknown

log = logging.getLogger(__name__)


_AGAIN = 60.0  # seconds after which a version that could not be loaded is tried again


@dataclass(frozen=True)
class _Broken:
    version: int
    why: str
    until: float


class Adapters:
    """Models as an event loop asks for them; a thread follows what is held."""

    def __init__(self, own: Hosted, replica: Replica, catalogue: Catalogue, spec: AdaptersSpec) -> None:
        self._own, self._replica, self._catalogue, self._spec = own, replica, catalogue, spec
        self._held: OrderedDict[str, Hosted] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Hosted]] = {}
        self._broken: dict[str, _Broken] = {}
        self._said: dict[str, str] = {}  # of what is pinned, why it is not held
        self._turn, self._ended = threading.Lock(), threading.Event()
        # Of its own: whoever waits for the registry or a busy base must not keep explanations and texts from theirs.
        self._loader = ThreadPoolExecutor(1, "adapters-load")
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)

    def start(self) -> None:
        """Hold what is pinned, as far as it can be loaded, and follow from now on."""
        self._try(self._catalogue.look)
        self._pin()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._loader.shutdown()
        self._own.follower.stop()

    async def of(self, model: str) -> Service:
        """Raises NotFoundError, and NotReadyError for a model that cannot be loaded."""
        if model == self._own.model:
            return self._own.service
        with self._turn:
            held = self._held.get(model)
            if held is not None:
                self._held.move_to_end(model)
                return held.service
        if model not in self._loading:
            # One load for all who ask meanwhile, and none the less when the first of them goes away.
            self._loading[model] = task = asyncio.create_task(self._loaded(model))
            task.add_done_callback(lambda done: self._done(model, done))
        return (await asyncio.shield(self._loading[model])).service

    async def listed(self) -> list[Listed]:
        """The server's own model first, then all on its base that could be asked for."""
        await asyncio.get_running_loop().run_in_executor(self._loader, self._try, self._catalogue.look)
        engine = self._own.service.engine()
        made = [Listed(engine.version, engine, self._own.follower.failed)]
        held = self._now()
        for version in self._catalogue.champions():
            if version.model == self._own.model:
                continue
            one, broken = held.get(version.model), self._broken.get(version.model)
            if one is not None and one.follower.engine is not None:
                made.append(Listed(one.follower.engine.version, one.follower.engine, one.follower.failed))
                continue
            failed = {broken.version: broken.why} if broken is not None and broken.version == version.version else {}
            made.append(Listed(version, None, failed))
        return made

    def ready(self) -> None:
        self._own.service.engine()

    def fits(self, version: ModelVersion) -> bool:
        return self._catalogue.fits(version)

    def engines(self) -> list[Engine]:
        return [engine for one in (self._own, *self._now().values()) for engine in loaded(one.follower)]

    def follow(self) -> None:
        """Once: newer champions of what is held; what has none any more is let go; what is pinned is held."""
        self._try(self._catalogue.look)
        for model, one in self._now().items():
            one.follower.follow()
            try:
                self._catalogue.champion(model)
            except NotFoundError:
                log.info("%s is served no more", model)
                self._let_go(model)
        with self._turn:
            self._make_room()  # a newer version may be larger
        self._pin()

    async def _loaded(self, model: str) -> Hosted:
        return await asyncio.get_running_loop().run_in_executor(self._loader, self._found, model)

    def _done(self, model: str, task: asyncio.Task[Hosted]) -> None:
        del self._loading[model]
        if not task.cancelled():
            task.exception()  # seen by whoever still waits, and no complaint where nobody does

    def _found(self, model: str) -> Hosted:
        """Raises NotFoundError, NotReadyError."""
        try:
            self._catalogue.champion(model)
        except NotFoundError:
            # Perhaps it is new: the registry is asked, once a while for all who ask for what is not there.
            self._try(self._catalogue.look)
        return self._hold(model)

    def _hold(self, model: str) -> Hosted:
        """Raises NotFoundError, NotReadyError."""
        self._catalogue.champion(model)  # which of them are of here
        try:
            champion = self._replica.aliases.find(model, CHAMPION)
            made = None if champion is None else self._made(champion)
        except NotReadyError:
            raise
        except Exception as error:
            # The registry or the files are away.
            log.warning("%s could not be loaded: %s", model, error)
            raise NotReadyError("cannot be loaded now", where=model, mend="try again shortly") from error
        if made is None:
            raise unknown(model, "see /v1/models")
        self._keep(made)
        return made

    def _made(self, champion: ModelVersion) -> Hosted:
        """Raises NotReadyError where the version is at fault: its model has no answer, and costs no load each time."""
        model, began = champion.model, time.monotonic()
        broken = self._broken.get(model)
        if broken is None or broken.version != champion.version or began > broken.until:
            try:
                made = hosted.other(champion, self._replica)
            except BrokenError as error:
                broken = self._broken[model] = _Broken(champion.version, str(error), began + _AGAIN)
            else:
                self._broken.pop(model, None)
                log.info("%s was loaded in %.2f s", model, time.monotonic() - began)
                return made
        mend = "promote another version; the others are served"
        raise NotReadyError(f"cannot be loaded: {broken.why}", where=model, mend=mend)

    def _keep(self, made: Hosted) -> None:
        with self._turn:
            self._held[made.model] = made
            self._make_room()

    def _make_room(self) -> None:
        """The one asked for last stays, be it larger than all that there is room for."""
        others, most_mib = [model for model in self._held if model not in self._spec.pinned], self._spec.most_mib
        for model in others[:-1]:
            if len(self._held) <= self._spec.most and (most_mib is None or self._mib() <= most_mib):
                return
            log.info("%s makes room", model)
            del self._held[model]

    def _mib(self) -> float:
        return sum(_size(engine) for one in self._held.values() for engine in loaded(one.follower)) / 2**20

    def _let_go(self, model: str) -> None:
        with self._turn:
            self._held.pop(model, None)

    def _now(self) -> dict[str, Hosted]:
        with self._turn:
            return dict(self._held)

    def _pin(self) -> None:
        held = self._now()
        for model in (model for model in self._spec.pinned if model not in held and model != self._own.model):
            try:
                self._hold(model)
            except (NotFoundError, NotReadyError) as error:
                if self._said.get(model) != str(error):
                    log.warning("pinned: %s", error)
                self._said[model] = str(error)

    def _run(self) -> None:
        while not self._ended.wait(until_tick("adapters", self._replica.serving.poll_seconds, time.time())):
            self.follow()

    def _try(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception:
            # It can be away for a while: what it said last goes on to hold.
            log.exception("the registry could not be asked for its models")


def _size(engine: Engine) -> int:
    """Bytes that it takes beside the base."""
    return int(engine.predictor.net.size) if isinstance(engine.predictor, Predictor) else 0
