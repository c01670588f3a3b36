"""Evidently's own UI, started as its users start it, over the reports of two windows."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster.session import free_port
from cluster.store.storage import Storage
from monitoring.drift.detect import detect
from monitoring.drift.reports import WORKSPACE, forget
from tests.monitoring.fakes import WORDS, sample

from .test_detect import SPEC, window

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Call to deprecated function|Use of deprecated class):DeprecationWarning"),
]


def test_its_ui_lists_every_window(tmp_path: Path) -> None:

    storage = Storage(str(tmp_path))
    reference, rows = (sample(n, np.random.default_rng(n)) for n in (120, 60))
    for number in (1, 2):
        detect(window(rows, number), reference, WORDS, SPEC, storage)
    port = free_port()
    command = [str(Path(sys.executable).with_name("evidently")), "ui", "--workspace", storage.url(WORKSPACE)]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ui:
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    projects = httpx.get(f"{url}/api/projects").json()
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            (project,) = projects
            assert project["name"] == "moods"
            reports = httpx.get(f"{url}/api/projects/{project['id']}/reports").json()
            assert sorted(report["name"] for report in reports) == ["moods 1-1", "moods 1-2"]
            assert "<html" in httpx.get(url).text.lower()
        finally:
            ui.terminate()

    snapshots = f"{WORKSPACE}/{project['id']}/snapshots"
    assert (len(storage.list("drift/moods")), len(storage.list(snapshots))) == (4, 2)
    assert forget(storage, "moods", ["1-1", "1-3"]) == 3
    assert storage.list("drift/moods") == ["1-2-summary.html", "1-2.html"]
    assert len(storage.list(snapshots)) == 1
