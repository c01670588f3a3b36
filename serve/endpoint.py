"""Where a model is served right now, written down under the storage root so that other commands find it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cluster.errors import NotFoundError
from cluster.storage import Storage


@dataclass(frozen=True)
class Endpoint:
    """`url`: base URL of our HTTP API; `jobs`: job API of the Ray cluster it runs on, if it has one."""

    model: str
    url: str
    jobs: str | None


def record(storage: Storage, endpoint: Endpoint) -> None:
    storage.write_json(f"serving/{endpoint.model}.json", asdict(endpoint))


def find(storage: Storage, model: str) -> Endpoint:
    """The endpoint recorded last; it may be gone. Raises NotFoundError."""
    path = f"serving/{model}.json"
    if not storage.exists(path):
        raise NotFoundError(f"model {model!r} is not served from this storage root", mend="`rehone serve SPEC`")
    return Endpoint(**storage.read_json(path))


def forget(storage: Storage, model: str) -> None:
    storage.remove(f"serving/{model}.json")
