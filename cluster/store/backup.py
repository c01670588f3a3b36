"""The storage root as one file, and back: `rehone backup`, `rehone restore`. For a local root; a bucket has versions.

Taken while everything runs. What names other files goes first (MLflow's database, as SQLite's own backup gives it, and
the logs of the tables), then the rest: whatever is named was there by then, and nothing is ever changed in place.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.errors import NotFoundError, UserError
from cluster.settings import Settings

_ABOUT = "rehone-backup.json"
_DATABASE, _LOGS = "mlflow/mlflow.db", "_delta_log"
_TRANSIENT = (".part", "-wal", "-shm", "-journal")
_COMPILED = "spool/engines"  # a replica makes them again


@dataclass(frozen=True)
class Backup:
    """`bytes` are those of the file."""

    file: str
    root: str
    at: str
    files: int
    bytes: int


def backup(settings: Settings, file: Path) -> Backup:
    """Write all of the storage root to `file` (.tar.gz). Raises UserError, NotFoundError where there is nothing."""
    root = _root(settings)
    if not root.is_dir():
        raise NotFoundError("nothing has been kept there yet", where=str(root))
    if file.exists():
        raise UserError("is there already", where=str(file), mend="name another file")
    if root in file.resolve().parents:
        raise UserError("lies in what it is to hold", where=str(file), mend="name a file elsewhere")
    about = {"root": str(root), "at": datetime.now(UTC).isoformat()}
    part, count = file.with_name(file.name + ".part"), 0
    with tarfile.open(part, "w:gz", compresslevel=1) as archive, tempfile.TemporaryDirectory() as folder:
        _add(archive, _ABOUT, json.dumps(about).encode())
        if (root / _DATABASE).exists():
            archive.add(_snapshot(root / _DATABASE, Path(folder)), _DATABASE)
            count += 1
        for path in _ordered(root):
            archive.add(path, str(path.relative_to(root)), recursive=False)
            count += 1
    part.replace(file)
    return Backup(str(file), about["root"], about["at"], count, file.stat().st_size)


def restore(settings: Settings, file: Path) -> Backup:
    """Put a backup where its storage root was. Raises UserError, NotFoundError.

    MLflow keeps the absolute paths of artifacts: a root can only be restored to the path that it had.
    """
    root = _root(settings)
    if not file.is_file():
        raise NotFoundError("no such file", where=str(file))
    if root.is_dir() and any(root.iterdir()):
        raise UserError("is not empty", where=str(root), mend="move away what is there")
    try:
        with tarfile.open(file, "r:gz") as archive:
            about = _about(archive, file)
            if about["root"] != str(root):
                mend = f"set REHONE_STORAGE={about['root']}: MLflow keeps the paths of its artifacts"
                raise UserError(f"was made of {about['root']}, not of {root}", where=str(file), mend=mend)
            temporary = root.with_name(root.name + ".restoring")
            shutil.rmtree(temporary, ignore_errors=True)
            archive.extractall(temporary, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"is no whole backup: {error}", where=str(file)) from None
    (temporary / _ABOUT).unlink()
    files = sum(path.is_file() for path in temporary.rglob("*"))
    if root.is_dir():
        root.rmdir()
    temporary.replace(root)
    return Backup(str(file), about["root"], about["at"], files, file.stat().st_size)


def _root(settings: Settings) -> Path:
    if "://" in settings.storage_root:
        mend = "use the versions or the replication of the object store"
        raise UserError("is no folder of this machine", where=settings.storage_root, mend=mend)
    return Path(settings.storage_root)


def _ordered(root: Path) -> Iterator[Path]:
    """Logs of tables, listed and read before what they name is listed. What is gone by its turn was named by none."""
    yield from (path for path in sorted(root.rglob(f"{_LOGS}/**/*")) if path.is_file())
    for path in sorted(root.rglob("*")):
        known = _LOGS in path.parts or path == root / _DATABASE or path.name.endswith(_TRANSIENT)
        known = known or path.is_relative_to(root / _COMPILED)
        if not known and path.is_file():
            yield path


def _snapshot(database: Path, folder: Path) -> Path:
    copy = folder / database.name
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _about(archive: tarfile.TarFile, file: Path) -> dict[str, str]:
    first = archive.next()
    if first is None or first.name != _ABOUT:
        raise UserError("is no backup of rehone", where=str(file))
    held = archive.extractfile(first)
    assert held is not None
    about: dict[str, str] = json.loads(held.read())
    return about
