"""Which models of the registry are adapters on one base, as it was a moment ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from cluster.errors import NotFoundError
from cluster.store.registry import CHAMPION, ModelVersion

from . import kin
from .models import unknown

_SHARE = 0.05  # of the time that goes into looking, at most


class Names(Protocol):
    """What is asked of the registry."""

    def aliases(self) -> Mapping[str, Mapping[str, int]]: ...

    def get(self, model: str, version: int) -> ModelVersion: ...


class Catalogue:
    """Of one kin (`kin.py`). `look` asks the registry; all else answers from what it said. Safe on any thread."""

    def __init__(self, names: Names, shared: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._names, self._kin, self._clock = names, shared, clock
        self._seconds, self._next, self._turn = seconds, 0.0, threading.Lock()
        self._champions: dict[str, ModelVersion] = {}

    def look(self) -> None:
        """Where it is time: not before `seconds` since the last, and later where the registry takes long to answer.

        Raises what the registry raises.
        """
        with self._turn:
            began = self._clock()
            if began < self._next:
                return
            self._next = began + self._seconds  # where it fails, too
            known, found = self._champions, self._names.aliases()
            made = {
                model: self._version(known.get(model), model, named)
                for model, named in found.items()
                if CHAMPION in named
            }
            self._champions = {model: version for model, version in made.items() if version is not None}
            took = self._clock() - began
            self._next = began + max(self._seconds, took / _SHARE)

    def champion(self, model: str) -> ModelVersion:
        """Raises NotFoundError for a model that is not there, or not on this base."""
        found = self._champions.get(model)
        if found is None:
            raise unknown(model, "see /v1/models")
        if not self.fits(found):
            theirs = kin.of_tags(found.tags) or f"by method {found.tags.get('method')}, which shares no base"
            raise NotFoundError(
                f"model {model!r} is not served here: it is {theirs}; here is {self._kin}", mend="serve it by itself"
            )
        return found

    def fits(self, version: ModelVersion) -> bool:
        """Whether a version, of whatever model, is on this base."""
        return kin.of_tags(version.tags) == self._kin

    def champions(self) -> list[ModelVersion]:
        """Of all models that are on this base, by name."""
        return [found for _, found in sorted(self._champions.items()) if self.fits(found)]

    def _version(self, known: ModelVersion | None, model: str, named: Mapping[str, int]) -> ModelVersion | None:
        number = named[CHAMPION]
        aliases = tuple(sorted(alias for alias, at in named.items() if at == number))
        if known is None or known.version != number:
            try:
                known = self._names.get(model, number)
            except NotFoundError:  # removed just now
                return None
        return replace(known, aliases=aliases)
