"""Fetch the human-rated sentiment sets that ship in vaderSentiment's source distribution (Hutto & Gilbert, ICWSM 2014).

    python -m examples.sentiment_data        # writes examples/data/*.csv

One CSV a domain with `text, label, document, rating`; rows rated within +-0.5 of neutral are left out.
"""

from __future__ import annotations

import csv
import hashlib
import html
from pathlib import Path

from . import packages

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
FOLDER = Path(__file__).resolve().parent / "data"
DOMAINS = {
    "tweets": "tweets",
    "movies": "movieReviewSnippets",
    "amazon": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
NEUTRAL = 0.5
HELD_OUT = 0.3
"""Share of the tweets' documents that the demo keeps as traffic; the spec never sees them."""


def fetch(folder: Path = FOLDER) -> dict[str, Path]:
    """Paths of the CSV files by domain, downloaded once. Raises DataError when the download is not what it was."""
    paths = {name: folder / f"{name}.csv" for name in ("train", *DOMAINS)}
    if not all(path.exists() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for domain, text in _download().items():
            _write(paths[domain], _rows(text))
        _write(paths["train"], [row for row in read(paths["tweets"]) if not held_out(row)])
    return paths


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def held_out(row: dict[str, str]) -> bool:
    """By a hash of the document, so that a document is on one side only and the choice never moves."""
    return int(hashlib.sha256(row["document"].encode()).hexdigest(), 16) % 100 < HELD_OUT * 100


def _download() -> dict[str, str]:
    inner = packages.member(packages.source(PACKAGE, SHA256), "hutto_ICWSM_2014.tar.gz")
    return {name: packages.member(inner, f"{stem}_GroundTruth.txt").decode("latin-1") for name, stem in DOMAINS.items()}


def _rows(text: str) -> list[dict[str, str]]:
    rows = []
    for line in text.splitlines():
        number, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= NEUTRAL:
            label = "positive" if float(rating) > 0 else "negative"
            document = number.split("_")[0]
            rows.append(
                {"text": html.unescape(sentence.strip()), "label": label, "document": document, "rating": rating}
            )
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label", "document", "rating"])
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


if __name__ == "__main__":
    for domain, path in fetch().items():
        print(f"{domain:11} {len(read(path)):6} rows  {path}")
