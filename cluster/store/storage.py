"""The storage root: named places under one folder or fsspec URL, and whole-file reads and writes in it.

Tables are in `tables.py`; runs and versions are MLflow's (`tracking.py`, `registry.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import NotFoundError
from cluster.settings import Settings

from . import fetched, private

_KEPT = 8  # files of a place that stay fetched; a training maps a few of them at once


class Storage:
    """Paths below are relative to the root, with `/`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._is_local = "://" not in root
        # Listings are not kept: other processes write too.
        self.fs, self._base = fsspec.core.url_to_fs(root, **({} if self._is_local else {"use_listings_cache": False}))

    @classmethod
    def from_settings(cls, settings: Settings) -> Storage:
        return cls(settings.storage_root)

    def url(self, *parts: str) -> str:
        """Absolute path or URL of a place, as other libraries take it."""
        return "/".join([self.root, *parts])

    def _path(self, path: str) -> str:
        return f"{self._base}/{path}"

    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self._path(path)))

    def list(self, path: str) -> list[str]:
        """Names in a place, sorted; empty when there is no such place."""
        if not self.exists(path):
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in self.fs.ls(self._path(path), detail=False))

    def write_bytes(self, path: str, data: bytes) -> None:
        """A reader sees the old file or the whole new one."""
        target = self._path(path)
        if not self._is_local:
            self.fs.pipe_file(target, data)  # an object store shows an object when all of it is there
            return
        self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        with self.fs.open(target + ".part", "wb") as file:
            file.write(data)
        self.fs.mv(target + ".part", target)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there yet, whole; False when it is. Of several at once exactly one succeeds."""
        target = self._path(path)
        if not self._is_local:
            try:
                self.fs.pipe_file(target, data, mode="create")  # If-None-Match: the store decides
            except FileExistsError:
                return False
            return True
        self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        part = f"{target}.{uuid.uuid4().hex}.part"
        with self.fs.open(part, "wb") as file:
            file.write(data)
        try:
            os.link(part, target)
        except FileExistsError:
            return False
        finally:
            Path(part).unlink()
        return True

    @contextmanager
    def made(self, path: str) -> Iterator[Path]:
        """A file of this machine to write to; it is there under `path`, whole, once the block has ended."""
        target = Path(self.url(path)) if self._is_local else private.folder() / "made" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
        try:
            yield part
            if self._is_local:
                part.replace(target)
            else:
                self.fs.put_file(str(part), self._path(path))
                self._fetched(path, part.replace)  # this machine has it
        finally:
            part.unlink(missing_ok=True)

    def put(self, path: str, file: Path) -> None:
        """A copy of a file of this machine, there when it is whole."""
        if not self._is_local:
            self.fs.put_file(str(file), self._path(path))
            return
        with self.made(path) as part:
            shutil.copyfile(file, part)

    def get(self, path: str, file: Path) -> None:
        """A copy as a file of this machine, which is the caller's. Raises NotFoundError."""
        try:
            self.fs.get_file(self._path(path), str(file))
        except FileNotFoundError:
            raise NotFoundError("does not exist", where=self.url(path)) from None

    def on_disk(self, path: str) -> Path:
        """A file that never changes, as one of this machine: fetched once, however many processes ask at a time.

        Raises NotFoundError.
        """
        if not self._is_local:
            return self._fetched(path, lambda part: self.get(path, part))
        target = Path(self.url(path))
        if not target.exists():
            raise NotFoundError("does not exist", where=self.url(path))
        return target

    def _fetched(self, path: str, fetch: Callable[[Path], object]) -> Path:
        """Grouped by the first two folders of its path: what is kept is a project's."""
        folders = path.split("/")[:-1]
        group = hashlib.sha256("/".join([self.root, *folders[:2]]).encode()).hexdigest()[:16]
        try:
            size = self.fs.size(self._path(path))
            name = f"{hashlib.sha256(path.encode()).hexdigest()[:16]}-{path.rpartition('/')[2]}"
            return fetched.kept(f"files/{group}", name, _KEPT, fetch, lambda part: part.stat().st_size == size)
        except FileNotFoundError:
            raise NotFoundError("does not exist", where=self.url(path)) from None

    def read_bytes(self, path: str) -> bytes:
        """Raises NotFoundError."""
        try:
            return bytes(self.fs.cat_file(self._path(path)))
        except FileNotFoundError:
            raise NotFoundError("does not exist", where=self.url(path)) from None

    def remove(self, path: str) -> None:
        """Remove a file or a place with all in it, if it is there."""
        if self.exists(path):
            self.fs.rm(self._path(path), recursive=True)

    def write_json(self, path: str, value: Any) -> None:
        self.write_bytes(path, json.dumps(value, indent=2, sort_keys=True, default=str).encode())

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def write_parquet(self, path: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self.write_bytes(path, sink.getvalue().to_pybytes())

    def read_parquet(self, path: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.read_bytes(path)))
