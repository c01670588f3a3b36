from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.inputs import images
from jobs.inputs.texts import DESCRIPTORS
from jobs.spec import Spec
from jobs.targets.label import PREDICTED as LABEL
from monitoring.drift import drawings, page
from monitoring.drift.compare import Sample, samples
from monitoring.drift.detect import CONFIDENCE
from monitoring.drift.estimate import Estimate
from monitoring.drift.page import Side
from tests.monitoring.fakes import drifted, result, sample

SPEC = Spec.model_validate({"name": "moods", "base_model": "b", "data": {"source": "a.csv"}})
EVIL = "<script>alert('x')</script> & \"quoted\""


def side(rows: pd.DataFrame) -> Side:
    columns = pd.DataFrame(
        {
            DESCRIPTORS[0]: rows["input"].str.len(),
            CONFIDENCE: rows["confidence"],
            LABEL: rows["label"],
        }
    )
    return Side(rows, Sample(columns, np.stack(list(rows["embedding"])).astype(float)))


@pytest.fixture(scope="module")
def before() -> Side:
    return side(sample(200, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def now() -> Side:
    return side(sample(100, np.random.default_rng(1), shift=1.5))


def made(before: Side, now: Side):
    columns = samples(before.sample, now.sample, SPEC.monitoring.level)
    drift = any(column.drifted for column in columns)
    return result(columns=columns, drifted=drift)


class Page(HTMLParser):
    """What a browser would make of it: open tags in their order, and the text."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text = " ".join(f"{self.text} {data}".split())


def test_a_page_says_what_drifted_and_shows_it(before, now, storage):
    found = made(before, now)
    page.keep(storage, found, before, now, SPEC)
    html = storage.read_bytes(found.page).decode()
    read = Page(html)
    assert read.text.count("drifted") >= 2
    assert page.headline(found) in read.text
    names = re.findall(r"<h3>([^<]+)", html)
    order = [column.drifted for name in names for column in found.columns if column.name == name.strip()]
    assert len(order) == len(found.columns) and order == sorted(order, reverse=True)
    assert "Grew from 0% to" in read.text and "Told by the words zzyzx" in read.text
    assert [tag for tag, _ in read.tags].count("svg") == 3
    assert ("a", {"href": "1-1.html"}) in read.tags
    assert len(html) < 150_000


def test_it_needs_no_network_and_no_scripts(before, now):
    html = page.html(made(before, now), before, now, SPEC)
    read = Page(html)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    assert "http" not in html and "url(" not in html


def test_a_quiet_window_says_so(before):
    html = page.html(made(before, before), before, before, SPEC)
    assert "nothing drifted" in html and "None of" in html
    assert 'class="tag"' not in html


def test_texts_and_labels_are_escaped_masked_and_cut(before, now):
    evil = f"{EVIL} call +1 650-253-0000, mail ann@example.com {'long ' * 100}"
    odd = side(now.rows.assign(input=evil, label=EVIL))
    html = page.html(made(before, odd), before, odd, SPEC)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "ann@example.com" not in html and "253-0000" not in html and "&lt;EMAIL&gt;" in html
    assert "long " * 60 not in html
    Page(html)


def test_images_are_shown_small():
    rng = np.random.default_rng(0)

    def pictures(count: int, at: int):
        noise = rng.integers(0, 50, (count, 200, 300, 3)) + at
        return [images.encoded(Image.fromarray(picture.astype(np.uint8))) for picture in noise]

    dark, light = pictures(4, 0), pictures(4, 200)
    points = np.concatenate([np.zeros((60, 2)), np.full((60, 2), 9.0)]) + rng.normal(size=(120, 2)) / 10
    rows = pd.DataFrame(
        {"input": [*dark * 15, *light * 15], "true": "a", "label": "a", "confidence": 0.9, "embedding": list(points)}
    )
    before, now = (side(part.reset_index(drop=True)) for part in (rows[:60], rows[40:]))
    spec = SPEC.model_copy(update={"task": "image-classification"})
    html = page.html(made(before, now), before, now, spec)
    shown = [attrs["src"] or "" for tag, attrs in Page(html).tags if tag == "img"]
    assert shown and all(len(source) < 10_000 for source in shown)
    assert max(images.opened(shown[0]).size) == 96
    assert len(html) < 150_000


def test_a_small_image_stays_as_it_is():
    small = images.encoded(Image.new("L", (8, 8)))
    assert page.thumbnail(small) == small


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Window 1 of version 1 of moods: 1 of 2 columns drifted; the model is estimated at 0.88, it was 0.89."),
        ({"accuracy": 0.71, "labelled": 40}, "1 of 2 columns drifted; the model is measured at 0.71, it was 0.89."),
        ({"accuracy": 0.5, "labelled": 4}, "1 of 2 columns drifted; the model is estimated at 0.88, it was 0.89."),
    ],
)
def test_the_headline_measures_where_labels_are_enough(changed, said):
    assert page.headline(drifted(**changed)).endswith(said)


def test_accuracy_names_what_it_rests_on():
    found = replace(drifted(), estimated=Estimate(0.8, 0.7, 0.9, 0.01))
    assert page.accuracy(found).startswith("No true label has come in. 0.800 estimated from the model's confidence")
    few = page.accuracy(replace(found, accuracy=0.5, labelled=4))
    assert few.startswith("0.500 measured on 4 labelled rows, fewer than the 30 that would say much.")


@pytest.mark.parametrize(
    ("p_value", "said"),
    [
        (1.0, "about 9 of 10"),
        (0.31, "about 3 of 10"),
        (0.0123, "about 1 of 81"),
        (0.00081, "about 1 of 1,200"),
        (0.0, "fewer than 1 of 1,000,000"),
    ],
)
def test_chance_in_words(p_value, said):
    assert page.chance(p_value) == said


FLOATS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30).map(np.array)


@given(FLOATS, FLOATS)
def test_any_numbers_can_be_drawn(before, now):
    found = drawings.histogram(before, now)
    Page(found)
    assert "nan" not in found and "inf" not in found


def test_no_values_on_one_side_are_no_picture(before, now):
    empty = Side(now.rows, replace(now.sample, columns=now.sample.columns.assign(confidence=np.nan)))
    assert "No values on one side." in page.html(made(before, empty), before, empty, SPEC)
