"""Who may ask: API keys, kept as hashes under the storage root, read anew while a server runs.

    keys/<id>.json    name, models, created, expires, digest

A key is `rhn_<id>_<256 random bits>` and is shown once, when it is made. What is kept is its SHA-256: nobody can search
256 random bits, so that nothing slower, as passwords need it, is of use.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cluster.errors import NotFoundError, UserError
from cluster.store.storage import Storage

log = logging.getLogger(__name__)

_PLACE = "keys"
_KEY = re.compile(r"rhn_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}")


class RefusedError(UserError):
    """Whoever asks is not known, and why."""


class Caller(Protocol):
    """`id` tells callers apart, `name` is written down."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    def may_ask(self, model: str) -> bool: ...


class Known(Protocol):
    """What tells whose a secret is."""

    async def who(self, secret: str) -> Caller:
        """Raises RefusedError, and another RehoneError where it cannot be told now."""


@dataclass(frozen=True)
class Key:
    """What is known of a key. `models` are those it may ask, none for all; `expires` is None for never."""

    id: str
    name: str
    models: tuple[str, ...]
    created: datetime
    expires: datetime | None
    digest: str

    def holds(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires

    def may_ask(self, model: str) -> bool:
        return not self.models or model in self.models

    def to_dict(self) -> dict[str, Any]:
        expires = self.expires.isoformat() if self.expires else None
        return {**asdict(self), "created": self.created.isoformat(), "expires": expires}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Key:
        expires = datetime.fromisoformat(tree["expires"]) if tree["expires"] else None
        created = datetime.fromisoformat(tree["created"])
        return cls(**{**tree, "models": tuple(tree["models"]), "created": created, "expires": expires})


def create(storage: Storage, name: str, models: tuple[str, ...] = (), days: float | None = None) -> tuple[Key, str]:
    """A new key and the secret that is its own. Raises UserError for a name that cannot be told in a line."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a key", mend="letters, digits, spaces and ._@- , at most 100")
    now, number = datetime.now(UTC), secrets.token_hex(6)
    secret = f"rhn_{number}_{secrets.token_urlsafe(32)}"
    expires = None if days is None else now + timedelta(days=days)
    key = Key(number, name, models, now, expires, _digest(secret))
    storage.write_json(f"{_PLACE}/{number}.json", key.to_dict())
    return key, secret


def listed(storage: Storage, known: Mapping[str, Key] | None = None) -> list[Key]:
    """Oldest first, expired ones too. A key never changes: those that are `known` by id are not read again."""
    ids = [name.removesuffix(".json") for name in storage.list(_PLACE) if name.endswith(".json")]
    keys = ((known or {}).get(number) or Key.from_dict(storage.read_json(f"{_PLACE}/{number}.json")) for number in ids)
    return sorted(keys, key=lambda key: key.created)


def revoke(storage: Storage, number: str) -> Key:
    """Servers refuse it within `serving.poll_seconds`. Raises NotFoundError."""
    found = next((key for key in listed(storage) if key.id == number), None)
    if found is None:
        raise NotFoundError(f"no key has the id {number!r}", mend="see `rehone keys list`")
    storage.remove(f"{_PLACE}/{number}.json")
    return found


class Callers:
    """The keys as they were a moment ago. Where the storage cannot be read, those known last go on to be good."""

    def __init__(
        self, storage: Storage, seconds: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._storage, self._seconds, self._clock = storage, seconds, clock
        self._keys = {key.id: key for key in listed(storage)}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def start(self) -> None:
        """Look for new and revoked keys every `seconds` from now on."""
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        self._keys = {key.id: key for key in listed(self._storage, self._keys)}

    async def who(self, secret: str) -> Key:
        """Raises RefusedError."""
        key = self.find(secret)
        if key is None:
            raise RefusedError("an API key is needed: `Authorization: Bearer ...`")
        return key

    def find(self, secret: str) -> Key | None:
        """Whose secret it is; None where it is nobody's, or no longer good."""
        shape = _KEY.fullmatch(secret)
        key = self._keys.get(shape["id"]) if shape else None
        if key is None or not hmac.compare_digest(key.digest, _digest(secret)):
            return None
        return key if key.holds(self._clock()) else None

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self.look()
            except Exception:
                log.exception("the keys could not be read; those known last are used")


@dataclass(frozen=True)
class Either:
    """Keys of our own first; what is none of them may be somebody else's."""

    keys: Callers
    other: Known

    async def who(self, secret: str) -> Caller:
        return self.keys.find(secret) or await self.other.who(secret)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
