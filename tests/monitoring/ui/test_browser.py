"""The page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from cluster.session import free_port
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import hold
from monitoring.journal import Journal
from monitoring.ui import server

from . import stories

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "a-token-of-the-test"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian's package chromium): no page was looked at"),
]


@pytest.fixture
def url(spec: Spec, told: Place) -> Iterator[str]:
    port = free_port()
    running = uvicorn.Server(uvicorn.Config(server.build(spec, told, TOKEN), port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("desktop", 1200, False), ("phone", 390, False), ("dark", 1200, True)]
)
def test_it_is_read_at_every_width(url: str, browser, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    faults: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{url}/?token={TOKEN}")
    assert page.url == f"{url}/"
    assert page.title() == "tiny: the loop"  # no script of a text has changed it
    assert page.locator("svg.timeline circle").count() == 14
    # Nothing but the timeline may be wider than the screen.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.screenshot(path=str(tmp_path / f"{name}.png"), full_page=True)
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000
    assert faults == []


def test_somebody_pauses_reads_approves_and_resumes(url: str, browser, told: Place) -> None:
    page = browser.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{url}/?token={TOKEN}")
    page.fill("input[name=why]", "a holiday")
    page.click("text=Pause")
    assert "a holiday" in page.inner_text("#paused")
    assert hold.paused(Journal(told.storage).entries(stories.NAME)) is not None
    page.locator("details summary").first.click()
    assert '"labels_waiting": 120' in page.locator("details pre").first.inner_text()
    page.click("text=Approve: serve version 2")
    assert page.locator("#awaits").count() == 0
    assert told.registry.champion(stories.NAME).version == 2
    page.click("text=Resume")
    assert page.locator("#paused").count() == 0
    page.locator("text=what moved").first.click()
    assert "what moved 1-14" in page.inner_text("h1")
    # The report is a sandbox: its scripts run and see nothing of ours.
    assert page.evaluate("(() => { try { return document.cookie } catch (e) { return 'none' } })()") == "none"
