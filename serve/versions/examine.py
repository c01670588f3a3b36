"""Before a version becomes champion: its golden inputs through a live replica, held to what its trainer answered.

Where nothing serves the model from this storage root, this process loads the version as a replica would, and the
certificate says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from cluster.errors import ClusterError, GateRefusedError, NotFoundError
from cluster.store.registry import ModelVersion
from jobs.pipeline import Place
from jobs.spec import VllmSpec
from serve import endpoint
from serve.engines import choice, engine, parity
from serve.many import kin

from .certificate import TAG, Certificate, Measured
from .tickets import Tickets, path
from .witness import RefusedError, Witness

_SECONDS = 600.0  # to load a large one
_TRIES, _PAUSE_SECONDS = 5, 2.0
_ANSWERED, _REFUSED = 200, 409
_LATER = {429, 502, 503, 504}


def certify(place: Place, version: ModelVersion, kind: choice.Kind, vllm: VllmSpec | None = None) -> Certificate:
    """Ask, compare, and keep the certificate with the version. `kind` is the engine where this process has to load it.

    Raises GateRefusedError where the answers disagree or the version does not load, ClusterError where a server is
    there and does not answer.
    """
    url = _server(place, version)
    answered = _by_replica(place, version, url) if url else None
    if answered is None:
        url, answered = "", _here(place, version, kind, vllm)
    made = _certificate(version, parity.read(place.registry.read(version, parity.GOLDEN)), answered, url)
    if made.apart > made.allowed:
        raise _refused(
            version, f"answers {made.apart:.2g} away from its trainer by {made.engine} (allowed: {made.allowed:g})"
        )
    place.registry.tag(version.model, version.version, {TAG: json.dumps(made.to_dict())})
    return made


def _certificate(version: ModelVersion, wanted: parity.Golden, answered: Mapping[str, Any], url: str) -> Certificate:
    return Certificate(
        version=version.version,
        engine=answered["engine"],
        inputs=len(wanted.inputs),
        apart=parity.differing(wanted, answered["answers"]),
        allowed=choice.TOLERANCE[answered["engine"]],
        replica=url,
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        engines=tuple(Measured(**one) for one in answered["engines"]),
    )


def _server(place: Place, version: ModelVersion) -> str:
    """Base URL of the server that was started last; "" where there is none."""
    try:
        return endpoint.find(place.storage, version.model, kin.of_tags(version.tags)).url
    except NotFoundError:
        return ""


def _by_replica(place: Place, version: ModelVersion, url: str) -> dict[str, Any] | None:
    """None where nothing listens any more: a server that was killed has left its address."""
    said = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        ticket = Tickets(place.storage).issue(version.model, version.version, time.time())
        try:
            answer = httpx.post(
                url + path(version.model), headers={"Authorization": f"Bearer {ticket}"}, timeout=_SECONDS
            )
        except httpx.ConnectError:
            return None
        except httpx.TimeoutException:
            said = f"nothing within {_SECONDS:g} s"
            break
        except httpx.TransportError as error:  # the replica that was asked has ended: another is there, or will be
            said = str(error) or type(error).__name__
            continue
        if answer.status_code == _ANSWERED:
            tree: dict[str, Any] = answer.json()
            return tree
        said = f"{answer.status_code}: {answer.text[:300]}"
        if answer.status_code == _REFUSED:
            raise _refused(version, f"a live replica refuses it: {answer.json()['detail']}")
        if answer.status_code not in _LATER:
            break
    raise ClusterError(
        f"no replica answers as version {version.version}: {said}",
        where=url,
        mend="see that the server is well, or end it; nothing was promoted",
    )


def _here(place: Place, version: ModelVersion, kind: choice.Kind, vllm: VllmSpec | None) -> dict[str, Any]:
    kept = choice.home(place.settings.spool_root)
    loader = choice.loader(kind, kept, vllm)
    witness = Witness(place.registry, lambda v, folder: engine.load(v, folder, loader), kept, lambda _: True)
    try:
        return witness.answer(version.model, version.version)
    except RefusedError as error:
        raise _refused(version, str(error)) from error


def _refused(version: ModelVersion, why: str) -> GateRefusedError:
    where = f"{version.model} version {version.version}"
    return GateRefusedError(why, where="" if where in why else where)
