"""The project that a verb needs elsewhere, as one zip file: the spec's folder and the files that the spec names.

Ignored files stay here, except those that the spec itself names (data is often ignored by git). What may not be sent
is refused, never left out in silence. The same project gives the same bytes, so a cluster that has it is sent nothing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError
from cluster.session import PROJECT

from . import ignore, leaks

LIMIT = 256 * 2**20
"""Bytes of a whole package. Ray keeps it in the head's memory and takes no more than 512 MiB."""

_OURS = ("rehone", "cluster", "jobs", "serve", "monitoring", "examples")
_OUTSIDE = "outside"
_LARGEST = 3


@dataclass(frozen=True)
class Project:
    """What is sent. `files`: name in the package -> file here."""

    folder: Path
    spec: str
    """The spec's name in the package."""
    overrides: tuple[str, ...]
    """`KEY=VALUE` for the verb there: the user's, with paths as they are in the package."""
    files: Mapping[str, Path]
    left: tuple[str, ...]
    """Absolute paths of the spec outside the folder: not sent, expected in the same place there."""

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return sum(file.stat().st_size for file in self.files.values())


def project(
    spec: Path, overrides: Sequence[str] = (), *, file_limit: int = leaks.FILE_LIMIT, limit: int = LIMIT
) -> Project:
    """What a verb on this spec needs. Raises UserError for what may not be sent, each file named."""
    folder = spec.resolve().parent
    named = list(_named(spec, overrides, folder))
    files = {file.relative_to(folder).as_posix(): file for file in ignore.files(folder)}
    files[spec.name] = spec.resolve()
    there: dict[str, str] = {}
    left = []
    for key, value, given in named:
        path = (folder / Path(value).expanduser()).resolve()
        inside = path.is_relative_to(folder)
        if not inside and value.startswith("/") and not given:
            left.append(value)
            continue
        name = path.relative_to(folder).as_posix() if inside else f"{_OUTSIDE}/{len(there)}/{path.name}"
        files |= _below(path, name)
        if given or not inside or value.startswith(("/", "~")):
            there[key] = f"./{name}"
    paths = (f"{key}={json.dumps(name)}" for key, name in there.items())
    made = Project(folder, spec.name, (*overrides, *paths), dict(sorted(files.items())), tuple(left))
    _check(made, file_limit, limit)
    return made


def write(made: Project, target: Path) -> str:
    """Write the zip and return its digest, 12 hex digits."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in made.files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the same bytes whenever it is made
            entry.external_attr = (0o755 if file.stat().st_mode & 0o100 else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return hashlib.sha256(target.read_bytes()).hexdigest()[:12]


def _check(made: Project, file_limit: int, limit: int) -> None:
    leaks.refuse(made.files, file_limit)
    hidden = sorted({name for name in made.files if made.folder != PROJECT and _hides(name)})
    if hidden:
        raise UserError(
            f"would hide rehone's own code there: {', '.join(hidden)}",
            where=str(made.folder),
            mend="rename it, or list it in .rehoneignore",
        )
    if made.size > limit:
        by_size = sorted(made.files, key=lambda name: made.files[name].stat().st_size, reverse=True)[:_LARGEST]
        raise UserError(
            f"{made.size / 2**20:,.0f} MiB to send, the limit is {limit / 2**20:,.0f}; largest: {', '.join(by_size)}",
            where=str(made.folder),
            mend="list in .rehoneignore what the job does not need, or keep the data where the cluster can read it",
        )


def _hides(name: str) -> bool:
    """A module at the top of the package comes before an installed one of that name."""
    first, _, rest = name.partition("/")
    return (first.removesuffix(".py") in _OURS) if not rest else (first in _OURS and rest == "__init__.py")


def _below(path: Path, name: str) -> dict[str, Path]:
    if path.is_file():
        return {name: path}
    return {f"{name}/{file.relative_to(path).as_posix()}": file for file in ignore.everything(path)}


def _named(spec: Path, overrides: Sequence[str], folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(dotted key, value, whether an override gave it) of each text that names a file or folder here."""
    try:
        tree = _yaml(spec.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(spec)) from None
    values = {key: (value, False) for key, value in _leaves(tree)}
    for override in overrides:
        key, _, text = override.partition("=")
        values |= {dotted: (value, True) for dotted, value in _leaves(_yaml(text), key.strip())}
    for key, (value, given) in values.items():
        if isinstance(value, str) and _is_here(value, folder):
            yield key, value, given


def _is_here(value: str, folder: Path) -> bool:
    """Whether a value names a file or folder that exists, and not the project's own folder or one above it."""
    if not any(sign.isalnum() for sign in value) or "\0" in value:
        return False
    try:
        path = (folder / Path(value).expanduser()).resolve()
        return path.exists() and not folder.is_relative_to(path)
    except (OSError, RuntimeError):  # longer than a name may be, or the home of nobody
        return False


def _leaves(tree: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings. A list names no files."""
    if not isinstance(tree, dict):
        yield at, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{at}.{key}" if at else str(key))


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # the verb itself says what is wrong with it
        return text
