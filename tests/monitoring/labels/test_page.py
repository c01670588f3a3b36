"""The page of a label queue: what is in it, and its script under node, what a browser keeps. How it looks needs eyes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cluster.errors import UserError
from monitoring.labels import page as labelling
from monitoring.labels import queue as labels
from monitoring.windows import labelled
from serve.log.predictions import Prediction, new_id, prediction_log
from tests.monitoring.fakes import BEGAN, publish, sample

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MODEL = "tiny"
KNOWN = ["negative", "positive"]
NASTY = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    '=1+1,"quoted", a comma',
    "two\nlines\r\nand a third\r",
    "  blanks around  ",
    "é 漢字 🙂 \u2028 \u202e",
    "__QUEUE__",
    "data:image/png;base64,no picture",
    '"',
]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")


class Parts(HTMLParser):
    """Every script element's attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            attrs, text = self.scripts.pop()
            self.scripts.append((attrs, text + data))


def data_of(page: str):
    ((_, text),) = [each for each in Parts(page).scripts if each[0].get("type") == "application/json"]
    return json.loads(text)


def under_node(page: str, call: str):
    """What a call gives, after the page's script has run where there is no document."""
    ((_, script),) = [each for each in Parts(page).scripts if "type" not in each[0]]
    code = f"{script}\nprocess.stdout.write(JSON.stringify({call}));"
    done = subprocess.run(["node", "-"], input=code, capture_output=True, text=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def filled(page: str, answers: dict[str, str]) -> str:
    found = data_of(page)
    return under_node(page, f"csv({json.dumps(found['columns'])}, {json.dumps(found['rows'])}, {json.dumps(answers)})")


@pytest.fixture
def loop(storage, tmp_path) -> SimpleNamespace:
    """A champion and an answer for each of NASTY."""
    registry = publish(tmp_path / "version", sample(60, np.random.default_rng(1)))
    (tmp_path / "version" / "manifest.json").write_text(json.dumps({"labels": KNOWN}))
    rng, ids = np.random.default_rng(0), [new_id(MODEL, 1) for _ in NASTY]
    for i, (key, text) in enumerate(zip(ids, NASTY, strict=True)):
        high, point = 0.95 - i / 50, rng.normal(size=8).astype(np.float32)
        scores = {"negative": 1 - high, "positive": high}
        at = BEGAN + timedelta(seconds=i)
        made = Prediction(key, at, MODEL, 1, text, "positive", high, scores, point)
        prediction_log(storage).append([made.to_row()])
    return SimpleNamespace(storage=storage, registry=registry, ids=ids)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "queue.csv"


@pytest.fixture
def page(spec, loop, out) -> str:
    return labelling.path(out).read_text("utf-8") if labels.queue(spec, loop, out, len(NASTY), 100) else ""


def test_the_page_holds_the_queue_as_it_is(page, out):
    found = data_of(page)
    with out.open(newline="", encoding="utf-8") as lines:
        assert [found["columns"], *found["rows"]] == list(csv.reader(lines))
    assert found["columns"] == list(labels.COLUMNS)
    assert sorted(row[1] for row in found["rows"]) == sorted(NASTY)
    assert (found["model"], found["version"], found["file"], found["images"]) == (MODEL, 1, "queue.csv", False)
    assert found["labels"] == KNOWN


def test_nothing_in_a_text_leaves_its_element(page):
    assert len(Parts(page).scripts) == 2
    assert "alert(1)" in page
    assert "<script>alert" not in page


def test_nothing_comes_from_a_network(page):
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", page)


def test_who_labels_is_not_led(page):
    assert all(row[4].startswith("negative and positive are 0.") for row in data_of(page)["rows"])
    assert '<details id="model">' in page


def test_images_are_said_to_be_some():
    row = ["id", "data:image/png;base64,AAAA", "cat", "0.5", "", ""]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([labels.COLUMNS, row])
    assert data_of(labelling.html(text.getvalue(), ["cat", "dog"], "q.csv", "pets", 2, images=True))["images"] is True


def test_another_page_is_left_alone(spec, loop, out):
    labelling.path(out).write_text("<p>mine</p>")
    with pytest.raises(UserError, match="no page of a label queue") as error:
        labels.queue(spec, loop, out, 3, 100)
    assert error.value.exit_code == 2
    assert not out.exists()
    assert labelling.path(out).read_text() == "<p>mine</p>"


@needs_node
def test_what_the_page_saves_is_taken_as_it_is(page, spec, loop, out):
    saved = out.with_name("saved.csv")
    saved.write_bytes(filled(page, {loop.ids[0]: "negative", loop.ids[3]: "positive"}).encode())
    assert labels.answer(spec, loop, saved) == labels.Taken(2, 0, len(NASTY) - 2, 2, spec.monitoring.min_labels)
    rows = labelled(loop.storage, MODEL, 1)
    assert dict(zip(rows["input"], rows["true"], strict=True)) == {NASTY[0]: "negative", NASTY[3]: "positive"}


@needs_node
def test_without_a_label_the_page_saves_the_queue_byte_by_byte(page, out):
    assert filled(page, {}).encode() == out.read_bytes()


@needs_node
def test_labels_have_number_keys_and_digits_their_own(page):
    assert under_node(page, "keysOf(['good', '1', 'bad'])") == ["1", "2", "3"]
    assert under_node(page, "keysOf([...'0123456789'])") == list("0123456789")
    assert len(under_node(page, "keysOf([...'abcdefghijk'])")) == 9


@needs_node
def test_what_was_kept_for_other_rows_or_labels_is_let_go(page):
    rows = json.dumps([["a"], ["b"]])
    for said, left in [({"a": "x", "b": "gone", "c": "x"}, {"a": "x"}), (None, {})]:
        text = "null" if said is None else json.dumps(json.dumps(said))
        assert under_node(page, f"kept({text}, {rows}, ['x', 'y'])") == left


@needs_node
def test_one_more_answer_leaves_those_of_other_queues_and_the_last_of_very_many(page):
    drafted = "drafted({}, {}, {})"
    assert under_node(page, drafted.format("null", "'a'", "'x'")) == '{"a":"x"}'
    assert under_node(page, drafted.format("""'{"a":"x","b":"y"}'""", "'a'", "'y'")) == '{"b":"y","a":"y"}'
    assert under_node(page, drafted.format("""'{"a":"x","b":"y"}'""", "'a'", "undefined")) == '{"b":"y"}'
    many = json.dumps(json.dumps({f"id-{n}": "x" for n in range(20_000)}))
    left = json.loads(under_node(page, drafted.format(many, "'one more'", "'x'")))
    assert (len(left), "id-0" in left, "id-1" in left, "one more" in left) == (20_000, False, True, True)


@pytest.fixture
def browser() -> Iterator[Page]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it is made of
        from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running.new_page()
        running.close()


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian's package chromium): no page was looked at")
def test_a_queue_that_is_written_again_finds_its_draft(page, spec, loop, out, browser):
    """Other rows of it, in another order, and one that was taken back."""
    url, ids = labelling.path(out).as_uri(), [row[0] for row in data_of(page)["rows"]]
    browser.goto(url)
    for key in ("1", "2", "1"):
        browser.keyboard.press(key)
    browser.keyboard.press("ArrowLeft")
    browser.keyboard.press("1")  # the third, taken back
    assert browser.inner_text("#count") == f"2 of {len(NASTY)}"

    with out.open(newline="", encoding="utf-8") as lines:
        columns, *rows = csv.reader(lines)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *reversed(rows[1:])])
    again = labelling.html(text.getvalue(), KNOWN, out.name, MODEL, 1, images=False)
    labelling.path(out).write_text(again, "utf-8")
    browser.goto(url)
    assert browser.inner_text("#count") == f"1 of {len(NASTY) - 1}"
    browser.keyboard.press("2")

    labelling.path(out).write_text(page, "utf-8")  # the first is not forgotten meanwhile
    browser.goto(url)
    assert browser.inner_text("#count") == f"3 of {len(NASTY)}"
    with browser.expect_download() as saved:
        browser.click("#save")
    with Path(saved.value.path()).open(newline="", encoding="utf-8") as lines:
        given = {row["prediction_id"]: row["label"] for row in csv.DictReader(lines) if row["label"]}
    assert given == {ids[0]: KNOWN[0], ids[1]: KNOWN[1], ids[-1]: KNOWN[1]}
