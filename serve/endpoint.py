"""Where a model is served right now, written down under the storage root so that other commands find it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cluster.errors import NotFoundError
from cluster.store.storage import Storage
from jobs.spec import Spec

from .many import kin

_PLACE = "serving"


@dataclass(frozen=True)
class Endpoint:
    """`url`: base URL of our HTTP API; `jobs`: job API of the Ray cluster it runs on, if it has one.

    `kin`: whose adapters are all answered for too (`kin.py`); "" where it is this model alone.
    """

    model: str
    url: str
    jobs: str | None
    kin: str = ""

    @classmethod
    def of(cls, spec: Spec, url: str, jobs: str | None) -> Endpoint:
        """Of a server that was started by a spec."""
        return cls(spec.name, url, jobs, kin.of(spec) if spec.serving.adapters.most else "")


def record(storage: Storage, endpoint: Endpoint) -> None:
    storage.write_json(f"{_PLACE}/{endpoint.model}.json", asdict(endpoint))


def find(storage: Storage, model: str, kin: str = "") -> Endpoint:
    """The endpoint recorded last; it may be gone. Raises NotFoundError.

    Where the model has none of its own, one that answers for all of its `kin`.
    """
    path = f"{_PLACE}/{model}.json"
    if storage.exists(path):
        return Endpoint(**storage.read_json(path))
    names = storage.list(_PLACE) if kin else []
    for name in (name for name in names if name.endswith(".json")):
        other = Endpoint(**storage.read_json(f"{_PLACE}/{name}"))
        if other.kin == kin:
            return other
    raise NotFoundError(f"model {model!r} is not served from this storage root", mend="`rehone serve SPEC`")


def forget(storage: Storage, model: str) -> None:
    storage.remove(f"{_PLACE}/{model}.json")
