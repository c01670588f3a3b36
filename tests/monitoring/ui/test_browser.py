"""The page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn

from cluster.session import free_port
from cluster.settings import Settings
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import hold
from monitoring.drift.detect import detect
from monitoring.journal import Journal
from monitoring.ui import server
from tests.monitoring import fakes
from tests.monitoring.drift.test_detect import window

from . import stories

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "a-token-of-the-test"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian's package chromium): no page was looked at"),
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Call to deprecated function|Use of deprecated class):DeprecationWarning"),
]


@contextmanager
def served(spec: Spec, place: Place) -> Iterator[str]:
    """Its address."""
    port = free_port()
    app = server.build(spec, place, TOKEN)
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started and thread.is_alive():
            thread.join(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


Opened = Callable[..., "Page"]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """A page at an address, let in, in which nothing may go wrong."""
    faults: list[str] = []

    def open_(url: str, width: int = 1200, *, dark: bool = False) -> Page:
        context = contexts.enter_context(
            browser.new_context(viewport={"width": width, "height": 850}, color_scheme="dark" if dark else "light")
        )
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"{url}/?token={TOKEN}")
        page.wait_for_url(f"{url}/")
        return page

    with ExitStack() as contexts:
        yield open_
    # That it has kept a stranger's script from running is no fault.
    assert [fault for fault in faults if not fault.startswith("Blocked script execution in")] == []


@pytest.fixture(scope="module")
def url(spec: Spec, lived: Place) -> Iterator[str]:
    """Of a page to look at only."""
    with served(spec, lived) as address:
        yield address


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("name", "width"), [("desktop", 1200), ("phone", 390)])
def test_it_is_read_at_every_width(url: str, opened: Opened, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    page = opened(url, width, dark=dark)
    assert page.title() == "tiny: the loop"  # no script of a text has changed it
    assert page.locator("svg.timeline circle.measured").count() == 26
    # Nothing but the timeline may be wider than the screen, and of that the latest is in sight.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    latest = page.locator("svg.timeline circle.measured").last.bounding_box()
    assert latest is not None
    assert 0 < latest["x"] < width
    # Words of the timeline are as large as they were made, and a finger hits a button.
    assert page.locator("svg.timeline text").first.evaluate("e => e.getBoundingClientRect().height") > 10
    assert min(b.bounding_box()["height"] for b in page.locator("button:visible").all()) > 36
    seen = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", seen))) < 3 * 128) == dark
    page.screenshot(path=str(tmp_path / f"{name}.png"), full_page=True)
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000


def test_the_timeline_leads_to_what_is_behind_it(url: str, opened: Opened) -> None:
    page = opened(url)
    page.locator("svg.timeline .decided.retrain").first.click()  # of the first day: below what is unfolded at first
    row = page.locator("#decision-1-11")
    assert row.is_visible()
    assert '"labels_waiting": 240' in row.locator("pre").inner_text()
    row.get_by_text("what moved").click()
    assert page.inner_text("h1") == "what moved 1-11"
    page.go_back()
    page.locator("svg.timeline .promotion a").first.click()
    assert page.inner_text("h1") == "card of version 2"
    assert page.title() != "owned"  # ours have no script of their own, and run none
    page.go_back()
    page.locator("svg.timeline rect.retrain").first.click()
    assert page.url.endswith("#job-tiny-retrain-1-11")


def test_somebody_pauses_reads_approves_and_resumes(spec: Spec, told: Place, opened: Opened) -> None:
    with served(spec, told) as url:
        page = opened(url, 390)
        page.fill("input[name=why]", "a holiday")
        page.click("text=Pause")
        assert "a holiday" in page.inner_text("#paused")
        assert hold.paused(Journal(told.storage).entries(stories.NAME)) is not None
        page.click("text=Approve: serve version 4")
        page.wait_for_selector("#awaits", state="detached")
        assert told.registry.champion(stories.NAME).version == 4
        page.click("text=Roll back to version 2")
        page.wait_for_selector("text=Serve version 4")
        assert told.registry.champion(stories.NAME).version == 2
        page.click("text=Resume")
        page.wait_for_selector("#paused", state="detached")
        # It asks anew by itself, and what somebody else has done is there.
        hold.pause(Journal(told.storage), stories.NAME, "from elsewhere", by="bob@desk")
        page.evaluate("renew()")
        page.wait_for_selector("#paused")
        assert "by bob@desk: from elsewhere" in page.inner_text("#paused")
        assert page.evaluate("document.querySelector('.scroll').scrollLeft") > 0


def test_real_reports_draw_in_their_sandbox_and_reach_nothing(opened: Opened, tmp_path: Path) -> None:
    """The page of what moved and Evidently's, as `detect` writes them."""
    spec = Spec.model_validate({"name": fakes.MODEL, "base_model": "anything", "data": {"source": "/anything.csv"}})
    place = Place.from_settings(Settings(storage=str(tmp_path)))
    reference, rows = fakes.sample(120, np.random.default_rng(0)), fakes.sample(60, np.random.default_rng(1), shift=1.0)
    detect(window(rows, 1), reference, fakes.WORDS, spec, place.storage)
    with served(spec, place) as url:
        page = opened(url)
        page.goto(f"{url}/windows/1-1")
        assert "Window 1 of version 1 of moods" in page.inner_text("body")
        assert page.locator("svg").count() > 3
        page.goto(f"{url}/reports/1-1")
        page.get_by_text("Drift in column 'text length'").first.wait_for()
        page.locator(".js-plotly-plot svg").first.wait_for()  # drawn by Evidently's own script
        read = "(() => { try { return document.cookie } catch (e) { return e.name } })()"
        assert page.evaluate(read) == "SecurityError"
