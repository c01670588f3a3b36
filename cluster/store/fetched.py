"""What was fetched from a store, in this user's own folder of the machine: once for all processes, and not for ever.

    fetched/GROUP/NAME        a file or a folder, there whole or not at all
    fetched/GROUP/NAME.part   of a process that was killed as it fetched; removed by the next that has its turn

Of a group those stay that were asked for last, and whatever a living process holds (flock): the last few that it has
asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from cluster.errors import ClusterError

from . import private
from .turn import turn

_HELD = 4  # by a process; each one is an open file
_PART = ".part"

_holds: dict[Path, int] = {}
_holding = threading.Lock()


def kept(group: str, name: str, keep: int, fetch: Callable[[Path], object], sound: Callable[[Path], bool]) -> Path:
    """A file or folder that never changes. `fetch` makes it where it is not yet, or is not `sound` any more.

    `keep` of the group stay. Raises ClusterError when what was fetched is not sound either, and what `fetch` raises.
    """
    place = private.folder() / "fetched" / group
    place.mkdir(parents=True, exist_ok=True)
    target = place / name
    with turn(place):
        for part in place.glob(f"*{_PART}"):
            _remove(part)
        if not (_is_held(target) or (target.exists() and sound(target))):
            _fetch(target, fetch, sound)
        os.utime(target)
        _hold(target)
        _make_room(place, keep)
    return target


def digest(folder: Path) -> str:
    """Of all files in a folder, and of their names."""
    made = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            made.update(path.relative_to(folder).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return made.hexdigest()


def _fetch(target: Path, fetch: Callable[[Path], object], sound: Callable[[Path], bool]) -> None:
    part = target.with_name(target.name + _PART)
    fetch(part)
    if not sound(part):
        _remove(part)
        mend = "see who has changed it in the store, or publish it again"
        raise ClusterError("what was fetched is not what was written: it is not used", where=target.name, mend=mend)
    _remove(target)
    part.replace(target)


def _hold(target: Path) -> None:
    """Until this process has asked for a few others, or ends."""
    with _holding:
        held = _holds.pop(target, None)
        if held is None:
            held = os.open(target, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_SH)
        _holds[target] = held  # the last one now
        while len(_holds) > _HELD:
            os.close(_holds.pop(next(iter(_holds))))


def _is_held(target: Path) -> bool:
    """What this process holds is whole: it has seen that itself, and nobody may remove it."""
    with _holding:
        return target in _holds and target.exists()


def _make_room(place: Path, keep: int) -> None:
    found = sorted(place.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in found[:-keep]:
        if not _in_use(path):
            gone = path.with_name(path.name + _PART)  # killed half way, what is left is no version
            path.rename(gone)
            _remove(gone)


def _in_use(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
