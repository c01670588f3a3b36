"""Whether the storage root means the same to all who use it: every node, and the machine that a job was sent from.

A folder on one node's disk looks fine until a worker on another node writes its checkpoint into a folder of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError
from cluster.nodes import access
from cluster.settings import Settings

MARKS, SENT, EXPECTED = "sent", "REHONE_SENT", "REHONE_EXPECTED"
"""Where senders leave their marks; in a job: the name of its sender's, and variables that the cluster must have."""

_MEND = "set REHONE_STORAGE to an object store, or to a folder that all nodes mount with REHONE_STORAGE_SHARED=1"


def refuse(settings: Settings, nodes: int) -> None:
    """Raises UserError for a local root on more than one node, unless it is declared shared."""
    if settings.is_local and nodes > 1 and not settings.storage_shared:
        raise UserError(
            f"a folder on one node, and the cluster has {nodes}: the others would not see it",
            where=f"storage root {settings.storage_root}",
            mend=_MEND,
        )


def require(settings: Settings, nodes: int, environment: Mapping[str, str] = os.environ) -> None:
    """Where work joins a cluster. Raises UserError when the root is not shared, or not the one the sender has."""
    missing = [name for name in environment.get(EXPECTED, "").split(",") if name and not environment.get(name)]
    if missing:
        raise UserError(
            "is not set on the cluster, and was not sent since it holds a password",
            where=", ".join(missing),
            mend="set it in the environment of the nodes",
        )
    mark = environment.get(SENT)
    if mark and settings.is_local and not _mark(settings, mark).exists():
        raise UserError(
            "is not the folder that the job was sent from",
            where=f"storage root {settings.storage_root} on {os.uname().nodename}",
            mend=_MEND,
        )
    refuse(settings, nodes)


def sent_with(settings: Settings, submission_id: str) -> dict[str, str]:
    """Variables by which a job can tell; leaves the mark on a local root."""
    withheld = [name for name, value in settings.environment().items() if access.holds_password(value)]
    made = {EXPECTED: ",".join(withheld)} if withheld else {}
    if settings.is_local:
        mark = _mark(settings, submission_id)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        made[SENT] = submission_id
    return made


def _mark(settings: Settings, name: str) -> Path:
    return Path(settings.storage_root) / MARKS / name
