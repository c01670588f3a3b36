from __future__ import annotations

import json
import re

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import rehone
from jobs import specfile
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring.journal import Journal
from monitoring.ui import overview, server, timeline

from . import stories

TOKEN = "a-token-of-the-test"


@pytest.fixture
def client(spec: Spec, told: Place) -> TestClient:
    made = TestClient(server.build(spec, told, TOKEN), base_url="http://127.0.0.1:8100")
    assert made.get(f"/?token={TOKEN}").status_code == 200
    return made


def test_without_the_token_nothing_is_shown_and_nothing_done(spec: Spec, told: Place) -> None:
    stranger = TestClient(server.build(spec, told, TOKEN))
    for method, path in (("GET", "/"), ("GET", "/cards/1"), ("GET", "/windows/1-3"), ("POST", "/pause")):
        assert stranger.request(method, path).status_code == 401
    assert stranger.get("/?token=wrong").status_code == 401
    assert Journal(told.storage).entries(stories.NAME, "pause") == []


def test_the_token_leaves_the_address_and_no_script_reads_the_cookie(spec: Spec, told: Place) -> None:
    answer = TestClient(server.build(spec, told, TOKEN)).get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}


def test_another_sites_page_cannot_act(client: TestClient, told: Place) -> None:
    for origin in ("http://evil.example", "null"):
        assert client.post("/pause", headers={"Origin": origin}).status_code == 403
    assert Journal(told.storage).entries(stories.NAME, "pause") == []


def test_the_page_tells_the_loop(client: TestClient) -> None:
    text = client.get("/").text
    for words in ("version 1", "not served", "embedding", "retrain", "Version 2 passed and waits", "window 9"):
        assert words in text, words
    assert text.count("<circle") == 14
    assert text.count('class="drift"') == 7
    assert stories.HOSTILE not in text
    assert "&lt;script&gt;document.title" in text


def test_scripts_of_strangers_are_not_run(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", policy)
    assert f'<script nonce="{nonce}">' in client.get("/").text or nonce  # another one each time
    assert client.get("/").headers["content-security-policy"] != policy
    for path in ("/windows/1-3", "/reports/1-3", "/cards/2"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
        assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/windows/..%2f..%2fjournal", "/windows/1-99", "/reports/x", "/cards/99", "/windows/1-3%00", "/cards/..%2f1"],
)
def test_no_path_leads_elsewhere(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in {404, 422}


def test_pausing_is_told_and_ended(client: TestClient, spec: Spec, told: Place) -> None:
    client.post("/pause", data={"why": "labels <b>are</b> checked"})
    found = overview.gather(spec, told)
    assert found.paused is not None
    assert "labels <b>are</b> checked" in found.paused
    assert "labels &lt;b&gt;are&lt;/b&gt; checked" in client.get("/").text
    client.post("/pause")
    assert len(Journal(told.storage).entries(stories.NAME, "pause")) == 1
    client.post("/resume")
    assert overview.gather(spec, told).paused is None


def test_a_version_that_waits_is_approved_and_rolled_back(client: TestClient, spec: Spec, told: Place) -> None:
    assert [v.number for v in overview.gather(spec, told).versions if v.awaits] == [2]
    assert client.post("/promote/2").status_code == 200
    found = overview.gather(spec, told)
    assert found.champion is not None
    assert found.previous is not None
    assert (found.champion.number, found.previous.number) == (2, 1)
    assert "waits for your word" not in client.get("/").text
    client.post("/rollback")
    after = overview.gather(spec, told)
    assert after.champion is not None
    assert after.champion.number == 1
    assert [event.kind for event in after.events][-2:] == ["promotion", "rollback"]
    assert client.post("/promote/99").status_code == 404


def test_accuracy_is_by_the_labels_there_are(spec: Spec, told: Place) -> None:
    found = overview.gather(spec, told)
    early, late = found.windows[1], found.windows[-2]
    assert early.accuracy is not None
    assert late.accuracy is not None
    assert early.labelled == 25  # an hour of one every two minutes and a half, both ends
    assert late.accuracy < early.accuracy
    assert late.moved == ("embedding",)


def test_a_model_that_has_done_nothing_has_a_page(spec: Spec, place: Place) -> None:
    made = TestClient(server.build(spec, place, TOKEN))
    text = made.get(f"/?token={TOKEN}").text
    assert "No window of 250 predictions is complete yet" in text
    assert timeline.svg(overview.gather(spec, place)) == ""


def test_json_is_for_machines(spec: Spec, told: Place, tmp_path, monkeypatch) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    monkeypatch.setenv("REHONE_STORAGE", told.storage.root)
    said = CliRunner().invoke(rehone.app, ["ui", str(file), "--json"])
    assert said.exit_code == 0, said.output
    assert len(json.loads(said.stdout)["windows"]) == 14
    assert CliRunner().invoke(rehone.app, ["pause", str(file), "--why", "because"]).exit_code == 0
    assert "because" in CliRunner().invoke(rehone.app, ["status", str(file)]).stdout
    assert "ended: paused since" in CliRunner().invoke(rehone.app, ["resume", str(file)]).stdout
