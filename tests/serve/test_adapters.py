"""Many models on one base through the HTTP application: real adapters, a registry in memory, no Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import NotFoundError
from cluster.store.registry import CANARY, CHAMPION, PREVIOUS, ModelVersion
from cluster.store.storage import Storage
from jobs.models import manifest
from jobs.models.adapters import Base
from jobs.models.predictor import Predictor
from jobs.spec import AdaptersSpec, Spec
from serve.engines import engine
from serve.engines.batching import Batcher
from serve.http import app, callers
from serve.http.callers import Callers
from serve.http.guard import Bounds, Guard
from serve.http.telemetry import Telemetry
from serve.log.predictions import FEEDBACK, PREDICTIONS
from serve.log.spool import Spool
from serve.many import hosted, kin
from serve.many.adapters import Adapters
from serve.many.catalogue import Catalogue
from serve.many.hosted import Replica
from serve.tracing import UNTRACED
from tests import adapters, tiny
from tests.adapters import TEXTS

from .test_guard import Seen
from .test_spool import tables

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_thread")]
MODELS = ("tiny", "billing", "returns", "praise", "spam")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Registry:
    """Aliases in memory; what `Aliases` and `Catalogue` ask. `asked` counts questions for all names."""

    folders: dict[tuple[str, int], Path] = field(default_factory=dict)
    named: dict[str, dict[str, int]] = field(default_factory=dict)
    asked: int = 0
    away: bool = False

    def add(self, model: str, number: int, folder: Path) -> None:
        self.folders[model, number] = folder
        self.named.setdefault(model, {})[CHAMPION] = number

    def aliases(self) -> Mapping[str, Mapping[str, int]]:
        self._there()
        self.asked += 1
        return {model: dict(named) for model, named in self.named.items()}

    def get(self, model: str, version: int) -> ModelVersion:
        self._there()
        if (model, version) not in self.folders:
            raise NotFoundError("no such version")
        described = manifest.read(self.folders[model, version])
        spec = described["spec"]
        tags = {"task": spec["task"], "base_model": spec["base_model"], "method": spec["method"]["name"]}
        return ModelVersion(model, version, "run", "file:///x", tags, (CHAMPION,), 1e9)

    def find(self, model: str, alias: str) -> ModelVersion | None:
        self._there()
        number = self.named.get(model, {}).get(alias)
        return None if number is None else self.get(model, number)

    def download(self, version: ModelVersion) -> Path:
        self._there()
        return self.folders[version.model, version.version]

    def _there(self) -> None:
        if self.away:
            raise ConnectionError("the registry is away")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Spec:
    return tiny.spec(tmp_path_factory.mktemp("project"), base_model)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, project: Spec) -> Callable[..., Path]:
    """The folder of a version, made once: not to be changed."""
    home, known = tmp_path_factory.mktemp("versions"), dict[str, Path]()

    def write(seed: int, **values: Any) -> Path:
        name = f"{seed} {values}"
        if name not in known:
            spec = project.with_values({key.replace("__", "."): value for key, value in values.items()})
            known[name] = adapters.write(home / str(len(known)), spec, seed)
        return known[name]

    return write


class Server:
    """What `rollout.Server` is made of, but for Ray."""

    def __init__(self, spec: Spec, registry: Registry, home: Path, **how: Any) -> None:
        self.registry, self.clock, self.lines, self.seen = registry, 0.0, list[str](), Seen()
        self.base, self.spool = Base(spec.base_model, spec.task), Spool(home / "spool")
        self.batches: list[list[str]] = []
        self.batcher, trials = Batcher("champion", 32), Batcher("canary", 32)
        self._batchers = self.batcher, trials

        def admit(version: ModelVersion, folder: Path) -> engine.Engine:
            return engine.load(version, folder, self.base.load)

        replica = Replica(registry, admit, self.batcher, trials, self.spool, spec.serving, UNTRACED)
        own = hosted.own(spec, replica)
        own.follower.look_first()
        catalogue = Catalogue(registry, kin.of(spec), 1.0, lambda: self.clock)
        self.models = Adapters(own, replica, catalogue, AdaptersSpec(**{"most": 3, **how}))
        self.api = app.build(self.models, app.Limits(predict=16, explain=2, characters=1000))

    def look(self) -> None:
        """A tick of the follower, after a while."""
        self.clock += 10
        self.models.follow()

    @property
    def held(self) -> list[str]:
        return sorted({engine.version.model for engine in self.models.engines()})

    async def ask(self, model: str, inputs: Any, headers: Any = None, path: str = "predict") -> httpx.Response:
        return await self.send("POST", f"/v1/models/{model}/{path}", {"inputs": inputs}, headers)

    async def send(self, method: str, path: str, body: Any = None, headers: Any = None) -> httpx.Response:
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return await client.request(method, path, json=body, headers=headers)

    async def listed(self) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in (await self.send("GET", "/v1/models")).json()["data"]}

    def logged(self) -> dict[str, list[dict[str, Any]]]:
        into = tables()
        self.spool.flush(into)
        return {name: table.rows for name, table in into.items()}

    def stop(self) -> None:
        for batcher in self._batchers:
            batcher.stop()


@pytest.fixture
def registry(made: Callable[..., Path]) -> Registry:
    """Five models, champions all."""
    found = Registry()
    for seed, model in enumerate(MODELS, 1):
        found.add(model, 1, made(seed))
    return found


@pytest.fixture
def serve(project: Spec, registry: Registry, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**how: Any) -> Server:
        servers.append(Server(project, registry, tmp_path / str(len(servers)), **how))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def scores(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [score for one in answer.json()["predictions"] for score in one["scores"].values()]


def alone(folder: Path, inputs: list[str]) -> Any:
    """What a version says by itself, as scores to compare with."""
    said = [score for output in Predictor.load(folder)(inputs) for score in output.scores.values()]
    return pytest.approx(said, abs=1e-4)


async def test_a_model_is_loaded_when_it_is_asked_for_and_answers_as_it_does_alone(serve, registry) -> None:
    server = serve()
    assert server.held == ["tiny"]
    answer = await server.ask("billing", TEXTS)
    assert scores(answer) == alone(registry.folders["billing", 1], TEXTS)
    assert scores(await server.ask("tiny", TEXTS)) == alone(registry.folders["tiny", 1], TEXTS)
    assert (answer.json()["model"], answer.json()["version"]) == ("billing", 1)
    assert server.held == ["billing", "tiny"]
    rows = server.logged()[PREDICTIONS]
    assert [(row["model"], row["version"]) for row in rows] == [("billing", 1)] * 8 + [("tiny", 1)] * 8
    assert rows[0]["prediction_id"] == answer.json()["predictions"][0]["prediction_id"]


async def test_requests_for_several_models_are_one_batch(serve, registry) -> None:
    server = serve()
    for model in ("billing", "returns"):
        await server.ask(model, "warm up")
    passes: list[int] = []
    server.base.net.register_forward_pre_hook(lambda *given: passes.append(1))
    busy = server.base.one("a000001")
    with busy:  # what comes meanwhile gathers
        first = asyncio.create_task(server.ask("tiny", "good day"))
        await asyncio.sleep(0.3)
        texts = ["good day", "bad film", "warm room"]
        asked = [asyncio.create_task(server.ask(model, texts)) for model in ("tiny", "billing", "returns")]
        await asyncio.sleep(0.3)
    await first
    answers = await asyncio.gather(*asked)
    assert len(passes) == 2
    for model, answer in zip(("tiny", "billing", "returns"), answers, strict=True):
        assert scores(answer) == alone(registry.folders[model, 1], texts)


async def test_the_one_longest_unused_makes_room_and_comes_back(serve, registry) -> None:
    server = serve(most=2)
    for model in ("billing", "returns", "billing", "praise"):
        await server.ask(model, "good")
    assert server.held == ["billing", "praise", "tiny"]
    await server.ask("tiny", "a")  # its batch lets go of the last one
    assert server.base.adapters == 3
    assert scores(await server.ask("returns", TEXTS)) == alone(registry.folders["returns", 1], TEXTS)
    assert server.held == ["praise", "returns", "tiny"]


async def test_large_ones_make_more_room_than_small_ones(serve, registry, made) -> None:
    """The bound holds for newer versions too."""
    server = serve(most=4)
    for model in ("billing", "returns", "praise"):
        await server.ask(model, "good")
    before = server.base.weight_bytes
    size = next(engine.predictor.net.size for engine in server.models.engines() if engine.version.model == "praise")
    await server.ask("spam", "good")
    assert server.base.weight_bytes - before == size
    bounded = serve(most=4, most_mib=3.5 * size / 2**20)
    for model in ("billing", "returns", "praise"):
        await bounded.ask(model, "good")
    assert bounded.held == ["billing", "praise", "returns", "tiny"]
    await bounded.ask("spam", "good")
    assert bounded.held == ["praise", "returns", "spam", "tiny"]
    registry.add("spam", 2, made(9, method__rank=64))
    bounded.look()
    assert bounded.held == ["spam", "tiny"]  # asked for last, and larger than all the room
    assert scores(await bounded.ask("praise", "good"))
    assert bounded.held == ["praise", "tiny"]


async def test_what_is_pinned_is_there_from_the_start_and_stays(serve) -> None:
    server = serve(most=2, pinned=("spam",))
    server.models.start()
    assert server.held == ["spam", "tiny"]
    for model in ("billing", "returns", "praise"):
        await server.ask(model, "good")
    assert server.held == ["praise", "spam", "tiny"]
    server.models.stop()


async def test_one_that_makes_room_under_a_running_request_answers_it(serve, registry) -> None:
    server = serve(most=1)
    await server.ask("billing", "good")
    with server.base.one("a000001"):
        running = asyncio.create_task(server.ask("billing", TEXTS))
        await asyncio.sleep(0.2)
    # Whatever comes first: the batch of the one, or the load of the other, which takes its place.
    other = asyncio.create_task(server.ask("returns", TEXTS))
    assert scores(await running) == alone(registry.folders["billing", 1], TEXTS)
    assert scores(await other) == alone(registry.folders["returns", 1], TEXTS)
    assert server.held == ["returns", "tiny"]


async def test_many_clients_of_more_models_than_there_is_room_for_all_get_their_own(serve, registry) -> None:
    server = serve(most=2)
    wanted = {model: alone(registry.folders[model, 1], TEXTS[:3]) for model in MODELS}

    async def client(at: int) -> None:
        for step in range(8):
            model = MODELS[(at + step * (1 + at % 3)) % 5]
            assert scores(await server.ask(model, TEXTS[:3])) == wanted[model]

    await asyncio.gather(*(client(at) for at in range(8)))
    rows = server.logged()[PREDICTIONS]
    assert len(rows) == 8 * 8 * 3
    assert len({row["prediction_id"] for row in rows}) == len(rows)
    assert len(server.held) == 3
    await server.ask("tiny", "a")
    assert server.base.adapters == 3


async def test_who_asks_for_one_that_is_being_loaded_waits_for_that_load(serve, monkeypatch) -> None:
    server, loads = serve(), list[str]()
    plain = hosted.other

    def counted(champion: ModelVersion, replica: Replica) -> hosted.Hosted:
        loads.append(champion.model)
        return plain(champion, replica)

    monkeypatch.setattr(hosted, "other", counted)
    first = asyncio.create_task(server.ask("billing", "good"))
    others = [asyncio.create_task(server.ask("billing", "good")) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert loads == ["billing"]


async def test_one_that_loads_slowly_holds_up_only_those_who_ask_for_it(serve, registry, monkeypatch) -> None:
    server, let = serve(), threading.Event()
    plain, slow = server.base.load, registry.folders["billing", 1]

    def load(folder: Path) -> Predictor:
        assert folder != slow or let.wait(60)
        return plain(folder)

    assert (await server.ask("returns", "good")).status_code == 200
    monkeypatch.setattr(server.base, "load", load)
    waiting = [asyncio.create_task(server.ask("billing", "good")) for _ in range(4)]

    async def steady(model: str) -> list[httpx.Response]:
        return [await server.ask(model, [f"text {turn}", "good"]) for turn in range(20)]

    beside = await asyncio.gather(*(steady(model) for model in ("tiny", "returns") for _ in range(3)))
    assert not any(one.done() for one in waiting), "all the while"
    server.look()  # newer champions of the others are followed meanwhile
    let.set()
    answers = [answer for made in (*beside, await asyncio.gather(*waiting)) for answer in made]
    assert {answer.status_code for answer in answers} == {200}
    told = [one["prediction_id"] for answer in answers for one in answer.json()["predictions"]]
    logged = [row["prediction_id"] for row in server.logged()[PREDICTIONS]]
    assert len(told) == 6 * 20 * 2 + 4
    assert set(told) < set(logged)
    assert len(logged) == len(set(logged)) == len(told) + 1


async def test_a_model_is_added_and_taken_away_while_the_server_runs(serve, registry, made) -> None:
    server = serve()
    assert (await server.ask("new", "a")).status_code == 404
    registry.add("new", 1, made(9))
    assert (await server.ask("new", "a")).status_code == 404  # the registry is not asked at every request
    server.clock += 2
    answer = await server.ask("new", TEXTS)
    assert scores(answer) == alone(made(9), TEXTS)
    del registry.named["new"][CHAMPION]
    server.look()
    gone = await server.ask("new", "a")
    assert (gone.status_code, gone.json()["detail"]) == (404, "no model 'new' is served here (see /v1/models)")
    assert "new" not in await server.listed()
    await server.ask("tiny", "a")
    assert server.base.adapters == 1


async def test_names_that_nobody_has_cost_the_registry_one_question(serve, registry) -> None:
    server = serve()
    server.clock += 2
    for name in ("a", "b", "../../etc/passwd", "..%2f..%2fsecrets", "x" * 500):
        assert (await server.ask(name, "a")).status_code == 404
    assert registry.asked <= 1


async def test_a_new_champion_takes_over_and_a_broken_one_does_not(serve, registry, made, tmp_path) -> None:
    server = serve()
    await server.ask("billing", "good")
    registry.add("billing", 2, made(11))
    server.look()
    answer = await server.ask("billing", TEXTS)
    assert (answer.json()["version"], scores(answer)) == (2, alone(made(11), TEXTS))
    broken = made(12, training__seed=5)  # not to be used by others
    weights = broken / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    registry.add("billing", 3, broken)
    server.look()
    assert (await server.ask("billing", "good")).json()["version"] == 2
    assert list((await server.listed())["billing"]["failed"]) == ["3"]


async def test_a_version_that_disagrees_with_its_trainer_answers_nobody_and_harms_no_other(
    serve, registry, made, caplog
) -> None:
    server = serve()
    wrong = made(13, training__seed=6)
    golden = (wrong / "golden.json").read_text()
    (wrong / "golden.json").write_text((made(1) / "golden.json").read_text())
    registry.add("billing", 2, wrong)
    server.clock += 2
    answer = await server.ask("billing", "good")
    assert answer.status_code == 503
    assert "away from its trainer" in answer.json()["detail"]
    assert (await server.ask("returns", "good")).status_code == 200
    loads = server.base._numbers
    before = next(loads)
    assert (await server.ask("billing", "good")).status_code == 503
    assert next(loads) == before + 1  # it was not tried again
    assert "away from its trainer" in (await server.listed())["billing"]["failed"]["2"]
    (wrong / "golden.json").write_text(golden)
    registry.add("billing", 3, wrong)
    server.look()
    assert (await server.ask("billing", "good")).json()["version"] == 3


async def test_a_version_that_could_not_be_loaded_is_tried_again_after_a_while(
    serve, registry, made, monkeypatch
) -> None:
    monkeypatch.setattr("serve.many.adapters._AGAIN", 0.0)
    server, folder = serve(), made(19, training__seed=8)
    golden = (folder / "golden.json").read_text()
    (folder / "golden.json").unlink()
    registry.add("new", 1, folder)
    server.clock += 2
    assert (await server.ask("new", "a")).status_code == 503
    (folder / "golden.json").write_text(golden)
    assert (await server.ask("new", "a")).status_code == 200
    assert (await server.listed())["new"]["failed"] == {}


async def test_where_a_champion_is_broken_the_one_before_it_answers(serve, registry, made) -> None:
    server = serve()
    broken = made(14, training__seed=7)
    (broken / "golden.json").write_text((made(1) / "golden.json").read_text())
    registry.add("billing", 2, broken)
    registry.named["billing"][PREVIOUS] = 1
    assert (await server.ask("billing", "good")).json()["version"] == 1
    assert list((await server.listed())["billing"]["failed"]) == ["2"]


async def test_a_registry_that_is_away_keeps_what_is_held_and_says_so_for_the_rest(serve, registry) -> None:
    server = serve()
    await server.ask("billing", "good")
    await server.listed()
    registry.away = True
    server.look()
    assert (await server.ask("billing", "good")).status_code == 200
    assert (await server.ask("tiny", "good")).status_code == 200
    answer = await server.ask("returns", "good")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "returns: cannot be loaded now" in answer.json()["detail"]
    registry.away = False
    assert (await server.ask("returns", "good")).status_code == 200


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"method__name": "full"}, "by method full, which shares no base"),
        ({"base_model": "another"}, "text-classification on another"),
    ],
)
async def test_what_is_not_on_this_base_is_not_served_here_and_not_listed(serve, registry, made, values, why) -> None:
    server = serve()
    spec = manifest.read(made(1))["spec"]
    registry.add("foreign", 1, made(1))
    plain = registry.get

    def get(model: str, version: int) -> ModelVersion:
        found = plain(model, version)
        name = str(values.get("method__name", spec["method"]["name"]))
        tags = {**found.tags, "method": name, "base_model": values.get("base_model", spec["base_model"])}
        return ModelVersion(model, version, "run", "x", tags if model == "foreign" else found.tags, (CHAMPION,), 1e9)

    registry.get = get
    answer = await server.ask("foreign", "a")
    assert answer.status_code == 404
    assert why in answer.json()["detail"]
    assert "foreign" not in await server.listed()


async def test_all_that_could_be_asked_are_listed(serve) -> None:
    server = serve()
    await server.ask("returns", "a")
    found = await server.listed()
    assert list(found) == ["tiny", "billing", "praise", "returns", "spam"]
    assert [name for name, one in found.items() if one["loaded"]] == ["tiny", "returns"]
    assert found["returns"]["labels"] == ["negative", "positive"]
    assert (found["spam"]["labels"], found["spam"]["version"]) == ([], 1)


async def test_each_model_masks_as_its_own_spec_says(serve, registry, made) -> None:
    registry.add("secretive", 1, made(15, data__pii="mask"))
    server = serve()
    mine = "write to a.b@example.org"
    for model in ("secretive", "billing"):
        await server.ask(model, mine)
    assert [row["input"] for row in server.logged()[PREDICTIONS]] == ["write to <EMAIL>", mine]
    # Its next version does not mask any more.
    registry.add("secretive", 2, made(16))
    server.look()
    await server.ask("secretive", mine)
    assert server.logged()[PREDICTIONS][-1]["input"] == mine


async def test_labels_of_several_models_in_one_request_go_each_to_its_own_or_none_does(serve) -> None:
    server = serve()
    ids = {
        model: (await server.ask(model, "good")).json()["predictions"][0]["prediction_id"]
        for model in ("tiny", "billing")
    }
    labels = [{"prediction_id": made_, "label": "negative"} for made_ in ids.values()]
    unknown = [*labels, {"prediction_id": ids["tiny"], "label": "no label"}]
    assert (await server.send("POST", "/v1/feedback", {"feedback": unknown})).status_code == 422
    foreign = [*labels, {"prediction_id": "nobody.1." + 22 * "0", "label": "negative"}]
    assert (await server.send("POST", "/v1/feedback", {"feedback": foreign})).status_code == 404
    assert (await server.send("POST", "/v1/feedback", {"feedback": labels})).json() == {"accepted": 2}
    assert [(row["model"], row["label"]) for row in server.logged()[FEEDBACK]] == [
        ("tiny", "negative"),
        ("billing", "negative"),
    ]


async def test_a_key_opens_its_own_models_and_tells_nothing_of_others(serve, tmp_path) -> None:
    server, storage = serve(), Storage(str(tmp_path / "store"))
    _, mine = callers.create(storage, "shop", ("billing", "returns"))
    bounds = Bounds(ongoing=8, rate=0, body=10_000, seconds=30)
    server.api.add_middleware(Guard, bounds=bounds, callers=Callers(storage, 60))
    server.api.add_middleware(Telemetry, meter=server.seen, log=server.lines.append)
    key = {"Authorization": f"Bearer {mine}"}
    assert (await server.ask("billing", "a", key)).status_code == 200
    for model in ("tiny", "praise", "nobody"):
        answer = await server.ask(model, "a", key)
        assert (answer.status_code, answer.json()["detail"]) == (403, f"this caller may not ask {model}")
    embedded = await server.send("POST", "/v1/embeddings", {"model": "praise", "input": "a"}, key)
    assert embedded.status_code == 403
    label = {"prediction_id": "praise.1." + 22 * "0", "label": "negative"}
    assert (await server.send("POST", "/v1/feedback", label, key)).status_code == 403
    listed = (await server.send("GET", "/v1/models", headers=key)).json()["data"]
    assert [one["id"] for one in listed] == ["billing", "returns"]
    assert server.held == ["billing", "tiny"]
    assert '"model": "billing"' in server.lines[0]
    assert server.seen.models[0] == "billing"
    assert set(server.seen.models[1:]) == {""}


async def test_embeddings_and_explanations_are_the_named_models_own(serve, registry) -> None:
    server = serve()
    folder = registry.folders["praise", 1]
    made_ = await server.send("POST", "/v1/embeddings", {"model": "praise", "input": TEXTS[:2]})
    wanted = [output.embedding for output in Predictor.load(folder)(TEXTS[:2])]
    for one, vector in zip(made_.json()["data"], wanted, strict=True):
        assert one["embedding"] == pytest.approx(vector.tolist(), abs=1e-4)
    said = (await server.ask("praise", TEXTS[0], path="explain")).json()
    assert (said["model"], said["version"]) == ("praise", 1)
    assert said["explanations"][0]["score"] == pytest.approx(
        Predictor.load(folder).explain(TEXTS[0], None, 4).score, abs=1e-4
    )


async def test_a_canary_of_another_model_answers_its_share_of_that_models_requests(serve, registry, made) -> None:
    values = {"serving__canary__share": 0.999}
    registry.add("billing", 1, made(17, **values))
    registry.folders["billing", 2] = made(18)
    registry.named["billing"][CANARY] = 2
    server = serve()
    assert (await server.ask("billing", "a")).json()["version"] == 1
    server.look()
    assert (await server.ask("billing", "a")).json()["version"] == 2
    assert (await server.ask("tiny", "a")).json()["version"] == 1
    del registry.named["billing"][CANARY]
    server.look()
    assert (await server.ask("billing", "a")).json()["version"] == 1
