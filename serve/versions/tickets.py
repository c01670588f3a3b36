"""Who may have a replica answer as a version that does not serve: whoever can read the storage root.

A ticket names one version of one model, holds for ten minutes and is signed (HMAC-SHA256) with a secret that is kept
there. An API key is for the model's users, and this is not for them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cached_property
from secrets import token_hex

from cluster.store.storage import Storage

_PATH = "serving/secret"
_SECONDS = 600
_ROUTE = re.compile(r"/v1/models/[a-z0-9-]{1,40}/parity")
_TICKET = re.compile(r"(?P<version>\d{1,9})\.(?P<until>\d{1,12})\.(?P<signature>[0-9a-f]{64})", re.ASCII)


def path(model: str) -> str:
    """The route that takes them."""
    return f"/v1/models/{model}/parity"


def takes(asked: str) -> bool:
    """Whether a path is the route of some model."""
    return _ROUTE.fullmatch(asked) is not None


class Tickets:
    """Times are Unix seconds. The secret is read once: guessing costs no question to the store."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def issue(self, model: str, version: int, now: float) -> str:
        until = int(now) + _SECONDS
        return f"{version}.{until}.{self._signature(model, version, until)}"

    def version(self, model: str, ticket: str, now: float) -> int | None:
        """What a ticket is for; None for one that is none, or not any more."""
        found = _TICKET.fullmatch(ticket)
        if found is None:
            return None
        version, until = int(found["version"]), int(found["until"])
        good = hmac.compare_digest(found["signature"], self._signature(model, version, until))
        return version if good and now < until else None

    def _signature(self, model: str, version: int, until: int) -> str:
        said = f"{model}/{version}/{until}".encode()
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()

    @cached_property
    def _secret(self) -> bytes:
        self._storage.create(_PATH, token_hex(32).encode())
        return self._storage.read_bytes(_PATH)
