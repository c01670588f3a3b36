"""Which files of a project folder are the project: what `.gitignore` and `.rehoneignore` leave, as git reads them.

The ignore files of the enclosing repository count too. `.rehoneignore` comes after `.gitignore` in the same folder, so
`!data/` in it takes along what git leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.errors import UserError

FILES = (".gitignore", ".rehoneignore")
# Never part of a project, wherever it stands.
ALWAYS = (
    ".git",
    ".rehone/",
    ".venv/",
    "venv/",
    "node_modules/",
    "__pycache__/",
    "*.pyc",
    ".mypy_cache/",
    ".ruff_cache/",
)


@dataclass(frozen=True)
class Rules:
    """Patterns of one folder, for what is below it."""

    folder: Path
    spec: GitIgnoreSpec

    def judge(self, path: Path, *, is_folder: bool) -> bool | None:
        """True: ignored; False: taken by a `!`; None: not spoken of."""
        name = path.relative_to(self.folder).as_posix()
        return self.spec.check_file(f"{name}/" if is_folder else name).include


def files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder that are not ignored, sorted. Links to folders are not followed."""
    yield from _walk(folder, [Rules(folder, GitIgnoreSpec.from_lines(ALWAYS)), *_above(folder)])


def everything(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, whatever the ignore files say, less what is never part of a project."""
    yield from _walk(folder, [Rules(folder, GitIgnoreSpec.from_lines(ALWAYS))], obey=False)


def _walk(folder: Path, rules: Sequence[Rules], *, obey: bool = True) -> Iterator[Path]:
    known = [*rules, *_here(folder)] if obey else rules
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        if _ignored(path, known, is_folder=is_folder):
            continue
        if is_folder:
            yield from _walk(path, known, obey=obey)
        elif entry.is_file():  # a link to a file is that file; sockets, pipes and broken links are none
            yield path


def _ignored(path: Path, rules: Sequence[Rules], *, is_folder: bool) -> bool:
    said = (rule.judge(path, is_folder=is_folder) for rule in reversed(rules))
    return next((word for word in said if word is not None), False)


def _above(folder: Path) -> list[Rules]:
    """The rules of the folders above, down from the root of the git repository, if there is one."""
    above = [folder, *folder.parents]
    root = next((i for i, at in enumerate(above) if (at / ".git").exists()), 0)
    return [rules for at in reversed(above[1 : root + 1]) for rules in _here(at)]


def _here(folder: Path) -> list[Rules]:
    lines: list[str] = []
    for name in FILES:
        path = folder / name
        if path.is_file():
            try:
                lines += path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"cannot be read: {error}", where=str(path)) from None
    return [Rules(folder, GitIgnoreSpec.from_lines(lines))] if lines else []
