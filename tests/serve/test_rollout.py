"""Real Ray Serve, real HTTP, a real registry; only the model is a fake."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import httpx
import pandas as pd
import pytest
import ray
from ray import serve

from cluster.errors import ClusterError, GateRefusedError
from cluster.nodes.access import bearer
from cluster.settings import Settings
from cluster.store.registry import CANARY, Registry
from cluster.store.storage import Storage
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import promotion, trial
from monitoring.journal import Journal
from monitoring.judges import observed
from serve import endpoint, rollout
from serve.client import Client
from serve.endpoint import Endpoint
from serve.http import callers
from serve.log.predictions import feedback_log, observations, prediction_log
from serve.many import kin
from serve.versions import examine
from tests import adapters, registering

from . import fakes

pytestmark = pytest.mark.ray
PREDICT = "/v1/models/tiny/predict"


def register(settings: Settings, folder: Path, share: float, golden: float | None = None) -> int:
    fakes.write_version(folder, share, golden)
    return registering.register(settings, "tiny", folder, {"dataset": "none"}).version


def served(url: str, key: str | None = None) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{url}/v1/models", headers=bearer(key)).json()["data"][0]
    return found


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.1)
    assert until()


def keep_asking(url: str, answered: list[tuple[str, int]], failures: list[str], ended: threading.Event) -> None:
    """Requests of a new user each, until `ended`; (prediction id, version) of each answer.

    What fails is kept whole: its headers and body say whether a replica, Serve's proxy or HAProxy has sent it.
    """
    with httpx.Client(base_url=url, timeout=180) as client:  # a busy machine is slow, not wrong
        for user in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
            key, inputs = {"X-Rehone-Key": f"user {user}"}, ["what a day", "never again"]
            try:
                answer = client.post(PREDICT, json={"inputs": inputs}, headers=key)
            except httpx.HTTPError as error:
                failures.append(f"user {user}: {error!r}")
                continue
            if answer.status_code != 200:
                failures.append(f"user {user}: {answer.status_code} {dict(answer.headers)} {answer.text}")
                continue
            body = answer.json()
            answered.extend((p["prediction_id"], body["version"]) for p in body["predictions"])


def test_promotions_under_load_fail_no_request_and_lose_no_answer(ray_session: str, spec: Spec, tmp_path: Path) -> None:
    settings = Settings(storage=str(tmp_path / "store"))
    registry, spec = Registry(settings), spec.with_values({"serving.canary.share": 0.5})
    for number, (share, golden) in enumerate([(0.6, None), (0.7, None), (0.8, 0.2)], start=1):
        assert register(settings, tmp_path / str(number), share, golden) == number
    registry.promote("tiny", 3)
    with pytest.raises(ClusterError, match=re.escape("version 3: answers the golden inputs 0.6 away from its trainer")):
        rollout.start(spec, settings, load=fakes.load)
    registry.promote("tiny", 1)
    url = rollout.start(spec, settings, load=fakes.load)
    assert rollout.start(spec, settings, load=fakes.load) == url
    answered, failures, ended = list[tuple[str, int]](), list[str](), threading.Event()
    threads = [threading.Thread(target=keep_asking, args=(url, answered, failures, ended)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait(lambda: len(answered) > 20)
    # A promotion asks a live replica first, which goes on answering meanwhile.
    endpoint.record(Storage.from_settings(settings), Endpoint("tiny", url, None))
    assert examine.certify(Place.from_settings(settings), registry.get("tiny", 2), "torch").replica == url
    with pytest.raises(GateRefusedError, match=re.escape("version 3: answers the golden inputs 0.6 away")):
        examine.certify(Place.from_settings(settings), registry.get("tiny", 3), "torch")
    assert served(url)["version"] == 1
    registry._client.set_registered_model_alias("tiny", CANARY, "2")
    wait(lambda: {version for _, version in answered} == {1, 2})
    assert served(url)["version"] == 1
    registry._client.set_registered_model_alias("tiny", CANARY, "3")
    wait(lambda: bool(served(url)["failed"]))
    registry._client.delete_registered_model_alias("tiny", CANARY)
    registry.promote("tiny", 2)
    wait(lambda: served(url)["version"] == 2)
    registry.promote("tiny", 3)
    time.sleep(1)  # some looks of the follower
    assert served(url)["version"] == 2
    registry.promote("tiny", 1)
    wait(lambda: served(url)["version"] == 1)
    # A new version of the server itself: its replica takes over from the one that ends.
    with watched() as counts:
        assert rollout.start(spec.with_values({"serving.max_inputs": 7}), settings, load=fakes.load) == url
    wait(lambda: httpx.post(f"{url}/v1/models/tiny/predict", json={"inputs": ["a"] * 8}).status_code == 422)
    ended.set()
    for thread in threads:
        thread.join()
    said = httpx.post(f"{url}/v1/feedback", json={"prediction_id": answered[0][0], "label": "negative"})
    assert said.json() == {"accepted": 1}
    rollout.stop()

    assert failures == []
    assert min(counts) == 1, "the old one answers until the new one does"
    assert {version for _, version in answered} == {1, 2}
    storage = Storage.from_settings(settings)
    logged = prediction_log(storage).read(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert sorted(logged) == sorted(prediction for prediction, _ in answered)
    seen = observations(storage).read().to_pylist()
    assert {(row["version"], row["kind"]) for row in seen} == {(1, "answer"), (2, "answer"), (3, "load")}
    assert {row["prediction_id"] for row in seen if row["kind"] == "answer"} < set(logged)
    assert feedback_log(storage).read().to_pylist()[0]["prediction_id"] == answered[0][0]


@contextmanager
def watched() -> Iterator[list[int]]:
    """How many replicas answered, again and again, inside the block."""
    counts, ended = list[int](), threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            counts.append(states().get("RUNNING", 0))

    thread = threading.Thread(target=look)
    thread.start()
    yield counts
    ended.set()
    thread.join()


def shadow_metric() -> str:
    """What Prometheus would read of it."""
    (node,) = ray.nodes()
    read = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics").text
    return "".join(line for line in read.splitlines() if line.startswith("ray_rehone_shadow_inputs"))


def test_a_shadow_gets_copies_answers_nobody_and_is_judged(ray_session: str, spec: Spec, tmp_path: Path) -> None:
    """With API keys: clients have one, and a promotion asks the replica by a ticket."""
    settings = Settings(storage=str(tmp_path / "store"))
    canary = {"share": 1.0, "mode": "shadow", "shadow_time": 1.0, "rows": 60}
    values = {"serving.auth": "keys"} | {f"serving.canary.{name}": value for name, value in canary.items()}
    place, spec = Place.from_settings(settings), spec.with_values(values)
    for number, share in enumerate([0.6, 0.7], start=1):
        register(settings, tmp_path / str(number), share)
    place.registry.promote("tiny", 1)
    _, secret = callers.create(place.storage, "a shop", ("tiny",))
    court = promotion.court(spec, place)
    trial.begin(court, 2, 1)
    url = rollout.start(spec, settings, load=fakes.load)
    endpoint.record(place.storage, Endpoint("tiny", url, None))
    texts, made = [f"day {number}" for number in range(60)], dict[str, int]()
    with Client(url, "tiny", key=secret) as client, ThreadPoolExecutor(4) as pool:
        wait(lambda: served(url, secret)["loaded"] is True)
        assert examine.certify(place, place.registry.get("tiny", 2), "torch").replica == url

        def asked() -> pd.DataFrame:
            """What was observed, after all texts were asked once more; it leaves the replica every while."""
            for answer in pool.map(lambda text: client.predict([text]), texts):
                made.update({one["prediction_id"]: answer["version"] for one in answer["predictions"]})
            return observed.since(place.storage, "tiny", 1, 2, datetime(2000, 1, 1, tzinfo=UTC))

        wait(lambda: (seen := asked())["version"].nunique() == 2 and seen[seen["version"] == 2]["key"].nunique() == 60)
        verdict = trial.look(court, Journal(place.storage).entries("tiny"), place.registry.champion("tiny"))
        assert set(made.values()) == {1}
        wait(lambda: client.predict(["a new day"])["version"] == 2)
        wait(lambda: 'outcome="copied"' in shadow_metric())
    rollout.stop()

    assert verdict is not None
    assert verdict.trial is not None
    assert (verdict.action, verdict.trial.asked, verdict.trial.agreement) == ("promote", 60, 1.0)
    assert "a batch takes" in " ".join(verdict.reasons)
    logged = prediction_log(place.storage).read().to_pandas().set_index("prediction_id")
    assert made.keys() < set(logged.index)
    seen = observations(place.storage).read().to_pandas()
    ours, theirs = (seen[seen["kind"] == kind].set_index("prediction_id") for kind in ("answer", "shadow"))
    assert (set(ours["version"]), set(theirs["version"])) == ({1}, {2})
    assert set(ours.index) == set(theirs.index) <= set(logged.index)
    pd.testing.assert_series_equal(ours["batch_rows"].sort_index(), theirs["batch_rows"].sort_index())
    assert not theirs["fault"].notna().any()


def register_adapter(settings: Settings, model: str, spec: Spec, folder: Path, seed: int) -> int:
    adapters.write(folder, spec, seed)
    tags = {"task": spec.task, "base_model": spec.base_model, "method": spec.method.name}
    made = registering.register(settings, model, folder, tags).version
    Registry(settings).promote(model, made)
    return made


def test_models_come_and_go_on_one_base_while_the_server_runs(ray_session: str, spec: Spec, tmp_path: Path) -> None:
    settings = Settings(storage=str(tmp_path / "store"))
    place, registry, inputs = Place.from_settings(settings), Registry(settings), adapters.TEXTS
    for seed, model in enumerate(["tiny", "billing"], 1):
        register_adapter(settings, model, spec, tmp_path / model, seed)
    spec = spec.with_values({"serving.adapters.most": 2, "serving.max_ongoing": 64})
    url = rollout.start(spec, settings)
    endpoint.record(place.storage, Endpoint("tiny", url, None, kin.of(spec)))
    made: dict[str, set[str]] = {}

    def ask(model: str) -> tuple[int, list[float]]:
        answer = httpx.post(f"{url}/v1/models/{model}/predict", json={"inputs": inputs}, timeout=60)
        if answer.is_error:
            return answer.status_code, []
        said = answer.json()["predictions"]
        made.setdefault(model, set()).update(one["prediction_id"] for one in said)
        return answer.status_code, [score for one in said for score in one["scores"].values()]

    @cache
    def alone(model: str) -> object:
        outputs = Predictor.load(tmp_path / model)(inputs)
        return pytest.approx([score for output in outputs for score in output.scores.values()], abs=1e-4)

    assert ask("tiny") == (200, alone("tiny"))
    assert ask("billing") == (200, alone("billing"))
    assert ask("returns") == (404, [])
    # Added: its first version is promoted by a person, for which the server that runs answers as it first.
    register_adapter(settings, "returns", spec, tmp_path / "returns", 3)
    assert examine.certify(place, registry.get("returns", 1), "torch").replica == url
    wait(lambda: ask("returns")[0] == 200)
    assert ask("returns") == (200, alone("returns"))
    with ThreadPoolExecutor(12) as pool:
        models = ["tiny", "billing", "returns"] * 8
        assert list(pool.map(ask, models)) == [(200, alone(model)) for model in models]
    found = {one["id"]: one for one in httpx.get(f"{url}/v1/models").json()["data"]}
    assert {name: one["loaded"] for name, one in found.items()} == {"tiny": True, "billing": True, "returns": True}
    promotion.retire("billing", place)
    wait(lambda: ask("billing")[0] == 404)
    assert ask("returns")[0] == 200
    promotion.roll_back("billing", place)
    wait(lambda: ask("billing") == (200, alone("billing")))
    rollout.stop()
    rows = prediction_log(place.storage).read(columns=["model", "prediction_id"]).to_pylist()
    assert {model: {row["prediction_id"] for row in rows if row["model"] == model} for model in made} == made
    assert len(rows) == sum(map(len, made.values()))


def running() -> int:
    return sum(states().values())


def states() -> dict[str, int]:
    return dict(serve.status().applications[rollout.APPLICATION].deployments["Server"].replica_states)


def test_a_server_ends_when_nobody_asks_and_wakes_for_a_request(ray_session: str, spec: Spec, tmp_path: Path) -> None:
    settings = Settings(storage=str(tmp_path / "store"))
    register(settings, tmp_path / "1", 0.6)
    Registry(settings).promote("tiny", 1)
    scale = {"serving.autoscale.min": 0, "serving.autoscale.max": 2, "serving.autoscale.idle_seconds": 1.0}
    url = rollout.start(spec.with_values(scale), settings, load=fakes.load)
    wait(lambda: not running())
    answer = httpx.post(url + PREDICT, json={"inputs": "what a day"}, timeout=60)
    assert answer.status_code == 200
    assert running() == 1
    rollout.stop()
    made = [one["prediction_id"] for one in answer.json()["predictions"]]
    assert prediction_log(Storage.from_settings(settings)).read()["prediction_id"].to_pylist() == made
