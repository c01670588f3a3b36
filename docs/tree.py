"""The tree with a line a file, from the docstring that each file begins with: `python docs/tree.py > docs/tree.md`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("cluster", "jobs", "serve", "monitoring", "examples", "bench")


def main() -> None:
    print(markdown())


def markdown() -> str:
    """Folders from left to right, as imports point; files of a folder, then its folders."""
    files = sum(1 for top in FOLDERS for _ in (ROOT / top).rglob("*.py"))
    how = "[architecture](architecture.md) says how they hang together"
    head = f"# The tree\n\nOne line a file, {files} of them; {how}.\n"
    return "\n".join([head, *(line for top in FOLDERS for line in _folder(ROOT / top))]).rstrip()


def _folder(folder: Path) -> Iterator[str]:
    files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    yield f"## `{folder.relative_to(ROOT)}/`\n"
    if (folder / "__init__.py").exists():
        yield f"{said(folder / '__init__.py')}\n"
    yield "| | |\n|---|---|"
    yield from (f"| `{path.name}` | {said(path)} |" for path in files)
    yield ""
    for inner in sorted(path for path in folder.iterdir() if (path / "__init__.py").exists()):
        yield from _folder(inner)


def said(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
