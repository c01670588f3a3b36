from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import rehone
from cluster.errors import GateRefusedError
from cluster.settings import Settings
from cluster.store.registry import ModelVersion
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import promotion
from monitoring.journal import Journal
from monitoring.ui import overview, server

from . import stories

TOKEN = "a-token-of-the-test"
HERE = "http://127.0.0.1:8100"


def inside(spec: Spec, place: Place, base_url: str = HERE) -> TestClient:
    made = TestClient(server.build(spec, place, TOKEN), base_url=base_url)
    assert made.get(f"/?token={TOKEN}").status_code == 200
    return made


@pytest.fixture(scope="module")
def reader(spec: Spec, lived: Place) -> TestClient:
    """To look only."""
    return inside(spec, lived)


@pytest.fixture
def client(spec: Spec, told: Place) -> TestClient:
    return inside(spec, told)


def rows(place: Place, kind: str) -> list[str]:
    return [f"{entry.key} {entry.state}" for entry in Journal(place.storage).entries(stories.NAME, kind)]


def test_without_the_token_nothing_is_shown_and_nothing_done(spec: Spec, lived: Place) -> None:
    stranger, before = TestClient(server.build(spec, lived, TOKEN)), rows(lived, "pause")
    for method, path in (("GET", "/"), ("GET", "/cards/1"), ("GET", "/windows/1-3"), ("POST", "/pause")):
        assert stranger.request(method, path).status_code == 401
    assert stranger.get("/?token=wrong").status_code == 401
    assert stranger.post(f"/pause?token={TOKEN}").status_code == 401  # a link opens, and does nothing else
    assert rows(lived, "pause") == before


def test_the_token_leaves_the_address_and_no_script_reads_the_cookie(spec: Spec, lived: Place) -> None:
    answer = TestClient(server.build(spec, lived, TOKEN), base_url=HERE).get(f"/?token={TOKEN}")
    assert 'http-equiv="refresh" content="0;url=/"' in answer.text
    assert TOKEN not in answer.text
    given = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", f"rehone-8100={TOKEN}"} <= given
    assert "secure" not in given  # a browser would not send it back without HTTPS


def test_two_pages_on_one_machine_do_not_share_a_cookie(spec: Spec, lived: Place) -> None:
    """Cookies know no ports: the browser sends each page the other's too."""
    browser = inside(spec, lived)
    other = TestClient(server.build(spec, lived, "another-token"), base_url="http://127.0.0.1:8101")
    other.cookies = browser.cookies
    assert other.get("/").status_code == 401
    assert other.get("/?token=another-token").status_code == 200
    assert other.get("/").status_code == browser.get("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},  # the same site to a cookie, and another page
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": HERE},
    ],
)
def test_another_sites_page_cannot_act(reader: TestClient, lived: Place, headers: dict[str, str]) -> None:
    before = rows(lived, "pause")
    assert reader.post("/pause", headers=headers).status_code == 403
    assert rows(lived, "pause") == before


def test_the_page_acts_behind_what_speaks_https(client: TestClient, told: Place) -> None:
    """To the browser the address has https, to this server it has not."""
    assert client.post("/pause", headers={"Origin": HERE.replace("http:", "https:")}).status_code == 200
    assert client.post("/resume", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert rows(told, "pause")[-2:] == ["2 begun", "2 done"]


def test_the_page_tells_the_loop(reader: TestClient) -> None:
    text = reader.get("/").text
    for words in (
        "champion <b>version 2</b>",
        "not served",
        "text length, embedding",
        "Version 4 passed the gate and waits.",
        "wants a person&#39;s word",
        "promoted by ann@desk",
        "left for version 2: accuracy 0.720, version 2 has 0.870",
        "1.33 h",
        'tiny-retrain-2-11</td>\n<td><span class="tag bad">FAILED',
        "labels are checked",
    ):
        assert words in text, words
    assert stories.HOSTILE not in text
    assert text.count("&lt;script&gt;document.title") >= 3


def test_the_timeline_leads_to_windows_decisions_cards_and_jobs(reader: TestClient) -> None:
    text = reader.get("/").text
    (drawn,) = re.findall(r'<svg [^>]*class="timeline">.*?</svg>', text, re.DOTALL)
    links = re.findall(r'<a href="([^"]+)"', drawn)
    for link in {one for one in links if one.startswith("#")}:
        assert f'id="{link[1:]}"' in text, link
    for link in {one for one in links if not one.startswith("#")}:
        assert reader.get(link).status_code == 200, link
    kinds = {re.split(r"[-/]", link.strip("#/"))[0] for link in links}
    assert kinds == {"windows", "decision", "cards", "job"}
    assert drawn.count('class="measured" cx=') == 26
    assert drawn.count('<polyline class="measured"') == 4  # version 2 serves twice
    for kind, count in (("wait", 3), ("retrain", 3), ("roll-back", 1)):
        assert drawn.count(f'class="decided {kind}"') == count, kind


def test_scripts_of_strangers_are_not_run(reader: TestClient) -> None:
    first, second = (reader.get("/") for _ in range(2))
    nonces = []
    for answer in (first, second):
        (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", answer.headers["content-security-policy"])
        assert re.findall(r"<script[^>]*>", answer.text) == [f'<script nonce="{nonce}">']
        nonces.append(nonce)
    assert nonces[0] != nonces[1]
    for path, sandbox in (
        ("/windows/1-3", "sandbox"),
        ("/reports/1-3", "sandbox allow-scripts"),
        ("/cards/2", "sandbox"),
    ):
        answer = reader.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].split(";")[0] == sandbox


@pytest.mark.parametrize(
    "path",
    ["/windows/..%2f..%2fjournal", "/windows/1-99", "/reports/x", "/cards/99", "/windows/1-3%00", "/cards/..%2f1"],
)
def test_no_path_leads_elsewhere(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code in {404, 422}


def test_a_refusal_is_a_line_with_a_way_back(reader: TestClient) -> None:
    answer = reader.get("/cards/99")
    assert "model &#x27;tiny&#x27; has no version 99" in answer.text
    assert '<a href="/">' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_version_that_a_replica_refuses_is_not_promoted(
    reader: TestClient, lived: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Place, version: ModelVersion) -> None:
        raise GateRefusedError(f"a live replica refuses it: {stories.HOSTILE}", where=f"version {version.version}")

    monkeypatch.setattr(promotion, "_certify", refused)
    answer = reader.post("/promote/4")
    assert answer.status_code == 409
    assert "version 4: a live replica refuses it: &lt;script&gt;" in answer.text
    assert lived.registry.champion(stories.NAME).version == 2


def test_pausing_is_told_and_ended(client: TestClient, spec: Spec, told: Place) -> None:
    client.post("/pause", data={"why": "labels <b>are</b> checked"})
    found = overview.gather(spec, told)
    assert found.paused is not None
    assert "labels <b>are</b> checked" in found.paused
    assert "labels &lt;b&gt;are&lt;/b&gt; checked" in client.get("/").text
    client.post("/pause")
    assert rows(told, "pause") == ["1 begun", "1 done", "2 begun"]
    client.post("/resume")
    assert overview.gather(spec, told).paused is None


def test_a_version_that_waits_is_approved_and_rolled_back(client: TestClient, spec: Spec, told: Place) -> None:
    assert [v.number for v in overview.gather(spec, told).versions if v.awaits] == [4]
    assert client.post("/promote/4").status_code == 200
    found = overview.gather(spec, told)
    assert found.champion is not None
    assert found.previous is not None
    assert (found.champion.number, found.previous.number) == (4, 2)
    assert re.search(r"promoted by \S+@\S+$", found.champion.history[-1])
    assert "passed the gate and waits" not in client.get("/").text
    stale = client.post("/rollback/3")  # what was the previous one when the page was drawn
    assert (stale.status_code, "not the previous champion any more" in stale.text) == (409, True)
    assert client.post("/rollback/2").status_code == 200
    after = overview.gather(spec, told)
    assert after.champion is not None
    assert after.champion.number == 2
    assert [event.kind for event in after.events][-2:] == ["promotion", "rollback"]


def test_accuracy_is_by_the_labels_there_are(spec: Spec, lived: Place) -> None:
    found = overview.gather(spec, lived)
    assert len(found.windows) == 26
    for window, judged in zip(found.windows, Journal(lived.storage).entries(stories.NAME, "window")[1::2], strict=True):
        assert window.labelled == stories.ANSWERS // 2
        assert window.accuracy == pytest.approx(judged.body["accuracy"])
    assert found.windows[0].moved == ()
    assert found.windows[-1].moved == ("text length", "embedding")


def test_retrainings_are_told_when_their_cluster_is_gone(spec: Spec, lived: Place) -> None:
    gone = Place.from_settings(Settings(storage=lived.storage.root, address="http://127.0.0.1:9"))
    found = overview.gather(spec, gone)
    assert found.unreachable is not None
    assert found.unreachable.startswith("no Ray job API answers")
    assert [(job.id, job.status) for job in found.jobs] == [
        ("tiny-retrain-2-13", "SUCCEEDED"),
        ("tiny-retrain-2-11", "FAILED"),
        ("tiny-retrain-1-11", "SUCCEEDED"),
    ]
    assert "no Ray job API answers" in inside(spec, gone).get("/").text


def test_a_model_that_has_done_nothing_has_a_page(spec: Spec, place: Place) -> None:
    text = inside(spec, place).get("/").text
    assert "No window of 250 predictions is complete yet" in text
    assert '<svg viewBox="0 0 900' not in text


def test_json_is_for_machines(spec_file: Path, told: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHONE_STORAGE", told.storage.root)
    said = CliRunner().invoke(rehone.app, ["ui", str(spec_file), "--json"])
    assert said.exit_code == 0, said.output
    assert len(json.loads(said.stdout)["windows"]) == 26
    assert CliRunner().invoke(rehone.app, ["pause", str(spec_file), "--why", "because"]).exit_code == 0
    state = CliRunner().invoke(rehone.app, ["status", str(spec_file)]).stdout
    assert "because" in state
    assert "version 4 passed and waits: monitoring.approval wants a person's word" in state
    assert "ended: paused since" in CliRunner().invoke(rehone.app, ["resume", str(spec_file)]).stdout


@pytest.mark.long
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_prints_its_address_once_and_ends_when_told(
    spec_file: Path, tmp_path: Path, ended_by: signal.Signals
) -> None:
    environment = {**os.environ, "REHONE_STORAGE": str(tmp_path / "empty")}
    environment.pop("REHONE_UI_TOKEN", None)
    command = [sys.executable, "-m", "rehone", "ui", str(spec_file), "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().strip()
            page = url.split("?", maxsplit=1)[0]
            with httpx.Client(timeout=120) as browser:  # the first page imports MLflow and makes its database
                assert browser.get(url).status_code == 200
                assert "champion <b>none</b>" in browser.get(page).text
            assert httpx.get(page).status_code == 401
            running.send_signal(ended_by)
            rest, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, rest) == (0, "")
    assert url.split("token=")[1] not in said
    assert "Traceback" not in said
