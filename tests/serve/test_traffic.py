from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jobs.spec import CanarySpec
from jobs.tasks.task import Piece, Sampling
from serve.engines.batching import Batcher, Lane
from serve.engines.engine import Answered, Engine
from serve.http import app
from serve.log.predictions import OBSERVATIONS, PREDICTIONS, Prediction
from serve.log.spool import Spool
from serve.many.models import One
from serve.service import Service, Written
from serve.versions.dealing import route
from serve.versions.observer import Observer
from serve.versions.shadow import Budget
from serve.versions.traffic import Traffic

from . import fakes
from .test_spool import tables

CHAMPION, CANARY = 1, 2
MOST = 0.9999999
KINDS = ("answer", "shadow")


class Played:
    """A service over two fake versions and a real spool; the canary is held up while `free` is not set."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.spool = Spool(folder)
        self.models = {CHAMPION: fakes.FakePredictor(0.75), CANARY: fakes.FakePredictor(0.9)}
        self.engines: dict[int, Engine | None] = {
            number: Engine(fakes.version(number), model) for number, model in self.models.items()
        }
        self.free = threading.Event()
        self.free.set()
        self.counted: list[tuple[str, str, int]] = []
        self.traffic = Traffic(
            CanarySpec.model_validate({"shadow_time": 1.0} | spec),
            Lane(lambda: self.engines[CHAMPION], self.lane(CHAMPION)),
            Lane(lambda: self.engines[CANARY], self.lane(CANARY)),
            Observer("m", self.spool.append),
            lambda *counted: self.counted.append(counted),
        )
        self.service = Service(
            "m", self.spool, lambda: self.engines[CHAMPION], self.lane(CHAMPION), str, 4, traffic=self.traffic
        )

    def lane(self, number: int) -> Callable[[Sequence[str]], Awaitable[Answered]]:
        async def answer(texts: Sequence[str]) -> Answered:
            engine = self.engines[number]
            assert engine is not None
            if number == CANARY:
                await asyncio.to_thread(self.free.wait, 10)
            return engine.answer(texts)

        return answer

    async def ask(self, *texts: str, key: str | None = None) -> list[Prediction]:
        return await self.service.predict("m", texts, key=key)

    async def settled(self) -> None:
        self.free.set()
        await asyncio.gather(*self.traffic.shadow._tasks)

    def kept(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the prediction log and of the observations."""
        into = tables()
        self.spool.flush(into)
        return into[PREDICTIONS].rows, into[OBSERVATIONS].rows


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Played]:
    return lambda **spec: Played(tmp_path, **spec)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def texts(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_of_the_keys_is_routed(share: float) -> None:
    routed = sum(route(text, share) for text in texts(5000))
    assert binomtest(routed, 5000, share).pvalue > 0.001


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_moves_keys_one_way_only(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert route(key, low) == route(key, low)
    assert route(key, high) or not route(key, low)
    assert route(key, 1.0) and not route(key, 0.0)


def test_every_process_routes_alike() -> None:
    code = "from serve.versions.dealing import route; print([route(f'text {i}', 0.3) for i in range(200)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {str([route(text, 0.3) for text in texts(200)])}


@pytest.mark.anyio
async def test_a_canary_answers_its_share_and_both_are_observed(play) -> None:
    played = play(share=0.3)
    for text in texts(60):
        (made,) = await played.ask(text)
        assert made.version == (CANARY if route(text, 0.3) else CHAMPION)
    logged, seen = played.kept()
    assert [(row["prediction_id"], row["version"], row["label"]) for row in logged] == [
        (row["prediction_id"], row["version"], row["label"]) for row in seen
    ]
    assert {row["kind"] for row in seen} == {"answer"}
    assert all(row["seconds"] > 0 and row["batch_rows"] == 1 for row in seen)


@pytest.mark.anyio
async def test_a_key_keeps_its_version_whatever_is_asked(play) -> None:
    played = play(share=0.5)
    for user in ("ada", "grace", "edsger", "barbara"):
        made = [one for text in texts(8) for one in await played.ask(text, text + "!", key=user)]
        assert {one.version for one in made} == {CANARY if route(user, 0.5) else CHAMPION}
    assert len({row["key"] for row in played.kept()[1]}) == 4


@pytest.mark.anyio
async def test_a_client_names_its_key_in_a_header(play) -> None:
    played = play(share=0.5)
    api = app.build(One(played.service, fakes.Follower()), app.Limits(predict=4, explain=2, characters=1000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        for user in ("ada", "grace", "edsger", "barbara"):
            for text in texts(4):
                answer = await client.post(
                    "/v1/models/m/predict", json={"inputs": text}, headers={"X-Rehone-Key": user}
                )
                assert answer.json()["version"] == (CANARY if route(user, 0.5) else CHAMPION)
        long = await client.post("/v1/models/m/predict", json={"inputs": "a"}, headers={"X-Rehone-Key": 257 * "a"})
    assert long.status_code == 422
    assert long.json()["detail"].startswith("x-rehone-key: String should have at most 256 characters")


class Writing(fakes.FakePredictor):
    """Fails after so many words of a text, or stops for good."""

    def __init__(self, after: int, how: Exception | None) -> None:
        super().__init__()
        self.after, self.how, self.free = after, how, threading.Event()

    def write(self, given: str, sampling: Sampling) -> Iterator[Piece]:
        pieces = super().write(given, sampling)
        yield from itertools.islice(pieces, self.after)
        if self.how is not None:
            raise self.how
        self.free.wait(10)
        yield from pieces


async def written(played: Played, given: str, key: str | None = None, *, whole: bool = False) -> list[Written]:
    return [one async for one in played.service.write("m", given, Sampling(9), key, whole=whole)]


@pytest.mark.anyio
async def test_a_canary_writes_its_share_of_texts_and_both_are_observed_without_a_time(play) -> None:
    played = play(share=0.3)
    for said in texts(40):
        parts = await written(played, said)
        assert {part.version for part in parts} == {CANARY if route(said, 0.3) else CHAMPION}
        assert "".join(part.piece.text for part in parts) == said
        assert len({part.prediction_id for part in parts}) == 1
    logged, seen = played.kept()
    assert {row["version"] for row in logged} == {CHAMPION, CANARY}
    columns = ("prediction_id", "version", "label")
    assert [[row[name] for name in columns] for row in logged] == [[row[name] for name in columns] for row in seen]
    assert {(row["kind"], row["batch_rows"], row["seconds"], row["fault"]) for row in seen} == {
        ("answer", 1, None, None)
    }
    assert len({row["batch"] for row in seen}) == 40


@pytest.mark.anyio
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("after", "how"), [(0, ValueError("no such tensor")), (0, None), (1, ValueError("half"))])
async def test_a_text_that_a_canary_cannot_begin_or_end_the_champion_writes(play, whole, after, how) -> None:
    played = play(share=MOST, timeout_seconds=0.2 if how is None else 30)
    canary = Writing(after, how)
    played.engines[CANARY] = Engine(fakes.version(CANARY), canary)
    if after and not whole:
        # A part has been sent, and what the champion would write need not begin with it.
        with pytest.raises(ValueError, match="half"):
            await written(played, "one two three", whole=whole)
        logged, (seen,) = played.kept()
        assert (logged, seen["version"], seen["fault"]) == ([], CANARY, "ValueError: half")
        return
    parts = await written(played, "one two three", whole=whole)
    canary.free.set()
    assert {part.version for part in parts} == {CHAMPION}
    assert "".join(part.piece.text for part in parts) == "one two three"
    (row,), (seen,) = played.kept()
    assert row["version"] == CHAMPION
    assert (seen["version"], seen["fault"].split(":")[0]) == (CANARY, "TimeoutError" if how is None else "ValueError")


@pytest.mark.anyio
async def test_a_text_that_the_champion_cannot_write_either_is_its_fault_too(play) -> None:
    played = play(share=0.0001)
    played.engines[CHAMPION] = Engine(fakes.version(CHAMPION), Writing(1, ValueError("half")))
    with pytest.raises(ValueError, match="half"):
        await written(played, "one two three", whole=True)
    (seen,) = played.kept()[1]
    assert (seen["version"], seen["fault"]) == (CHAMPION, "ValueError: half")


@pytest.mark.anyio
async def test_openais_clients_are_dealt_by_key_user_and_how_a_conversation_begins(play) -> None:
    played = play(share=0.5)
    api = app.build(One(played.service, fakes.Follower()), app.Limits(predict=4, explain=2, characters=1000))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(api))
    client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0)

    def by(key: str) -> str:
        return f"version {CANARY if route(key, 0.5) else CHAMPION}"

    async def chat(*said: str, **more: Any) -> str | None:
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
        made = await client.chat.completions.create(model="m", messages=messages, **more)
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True, **more)
        assert {event.system_fingerprint async for event in stream} == {made.system_fingerprint}
        return made.system_fingerprint

    for name in ("ada", "grace", "edsger", "barbara"):
        assert {await chat(text, user=name) for text in texts(3)} == {by(name)}
        assert await chat("hi", safety_identifier=name) == by(name)
        assert await chat("hi", user="alan", extra_headers={"X-Rehone-Key": name}) == by(name)
        begun = by(json.dumps([{"role": "user", "content": name}]))
        assert await chat(name) == await chat(name, "and?", "more") == begun
        made = await client.completions.create(model="m", prompt=name)
        assert made.system_fingerprint == by(name)
    assert {row["version"] for row in played.kept()[0]} == {CHAMPION, CANARY}


@pytest.mark.anyio
async def test_where_the_canary_raises_the_champion_answers_and_the_fault_is_kept(play, caplog) -> None:
    played = play(share=MOST)
    played.models[CANARY].fails = ValueError("no such tensor")
    made = await played.ask("a", "b")
    assert [one.version for one in made] == [CHAMPION, CHAMPION]
    logged, seen = played.kept()
    assert [row["prediction_id"] for row in logged] == [one.prediction_id for one in made]
    assert [(row["version"], row["fault"], row["label"]) for row in seen] == 2 * [
        (CANARY, "ValueError: no such tensor", None)
    ]
    assert "the champion answers in its place" in caplog.text


@pytest.mark.anyio
async def test_requests_that_one_batch_fails_are_one_fault(play) -> None:
    played = play(share=MOST)
    played.models[CANARY].fails = ValueError("one exception")
    await played.ask("a")
    await played.ask("b")
    played.models[CANARY].fails = ValueError("another")
    await played.ask("c")
    first, second, third = (row["batch"] for row in played.kept()[1])
    assert first == second != third


@pytest.mark.anyio
async def test_a_canary_that_hangs_is_a_fault_too(play) -> None:
    played = play(share=MOST, timeout_seconds=0.05)
    played.free.clear()
    (made,) = await played.ask("a")
    played.free.set()
    assert made.version == CHAMPION
    assert played.kept()[1][0]["fault"].startswith("TimeoutError")


@pytest.mark.anyio
async def test_what_the_champion_cannot_answer_either_is_its_own_fault(play) -> None:
    played = play(share=0.0001)
    played.models[CHAMPION].fails = ValueError("no such word")
    with pytest.raises(ValueError, match="no such word"):
        await played.ask("a")
    logged, (seen,) = played.kept()
    assert (logged, seen["version"], seen["fault"]) == ([], CHAMPION, "ValueError: no such word")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["canary", "shadow"])
async def test_without_a_canary_the_champion_answers_and_nothing_is_observed(play, mode) -> None:
    played = play(share=MOST, mode=mode)
    played.engines[CANARY] = None
    (made,) = await played.ask("a")
    logged, seen = played.kept()
    assert (made.version, len(logged), seen) == (CHAMPION, 1, [])


@pytest.mark.anyio
async def test_a_shadow_answers_copies_that_only_the_observations_have(play) -> None:
    played = play(share=0.5, mode="shadow")
    for text in texts(40):
        (made,) = await played.ask(text)
        assert made.version == CHAMPION
    await played.settled()
    logged, seen = played.kept()
    assert {row["version"] for row in logged} == {CHAMPION}
    assert len(logged) == 40
    by_kind = {kind: [row for row in seen if row["kind"] == kind] for kind in ("answer", "shadow")}
    copied = {row["prediction_id"] for row in by_kind["answer"] if route(row["batch"], 0.5)}
    assert binomtest(len(copied), 40, 0.5).pvalue > 1e-4
    for kind, version in (("answer", CHAMPION), ("shadow", CANARY)):
        assert {row["prediction_id"] for row in by_kind[kind]} == copied
        assert {row["version"] for row in by_kind[kind]} == {version}
    assert (played.traffic.shadow.copied, played.traffic.shadow.dropped) == (len(copied), 0)
    assert sum(inputs for *_, inputs in played.counted) == len(copied)


@pytest.mark.anyio
async def test_a_batch_is_copied_whole_into_one(play) -> None:
    """Requests that the champion answered together the shadow answers together, in a batch of the same size."""
    played = play(share=1.0, mode="shadow")
    batches = [Batcher(name, 32) for name in ("champion", "canary")]
    ours, theirs = (
        Lane(lambda number=number: played.engines[number], batcher.lane(lambda number=number: played.engines[number]))
        for number, batcher in zip((CHAMPION, CANARY), batches, strict=True)
    )
    played.traffic._champion, played.traffic.shadow._canary = ours, theirs
    played.models[CHAMPION].seconds = 0.02  # so that the next batch gathers meanwhile
    made = [one for made in await asyncio.gather(*map(played.ask, texts(40))) for one in made]
    await played.settled()
    for batcher in batches:
        batcher.stop()
    assert [len(call) for call in played.models[CANARY].calls] == [len(call) for call in played.models[CHAMPION].calls]
    assert len(played.models[CANARY].calls) < 10
    seen = played.kept()[1]
    sizes = {kind: {row["prediction_id"]: row["batch_rows"] for row in seen if row["kind"] == kind} for kind in KINDS}
    assert sizes["answer"] == sizes["shadow"]
    assert sizes["answer"].keys() == {one.prediction_id for one in made}


@pytest.mark.anyio
async def test_a_full_queue_drops_copies_and_delays_nobody(play, caplog) -> None:
    played = play(share=1.0, mode="shadow", queue=3)
    played.free.clear()
    for text in texts(10):
        (made,) = await asyncio.wait_for(played.ask(text), 5)  # the shadow hangs all the while
        assert made.version == CHAMPION
    shadow = played.traffic.shadow
    assert (shadow.copied, shadow.dropped) == (0, 7)
    await played.settled()
    assert shadow.copied == 3
    await played.ask("one more")
    await played.settled()
    assert shadow.copied == 4
    logged, seen = played.kept()
    assert (len(logged), len(seen)) == (11, 8)
    assert caplog.text.count("no time or no room") == 1
    assert played.counted == 7 * [("m", "dropped", 1)] + 4 * [("m", "copied", 1)]


@pytest.mark.anyio
async def test_a_shadow_that_has_had_its_time_gets_no_copies_until_there_is_some(play) -> None:
    now, played = 0.0, play(share=1.0, mode="shadow", shadow_time=0.02)

    def clock() -> float:
        nonlocal now
        now += 0.5
        return now

    shadow = played.traffic.shadow
    shadow._clock, shadow._budget.at, shadow._budget.left = clock, 0.0, -0.1
    await played.ask("a", "b")
    await played.settled()
    assert (shadow.copied, shadow.dropped, len(played.models[CANARY].calls)) == (0, 2, 0)
    now = 6.0
    await played.ask("a", "b")
    await played.settled()
    assert (shadow.copied, shadow.dropped) == (2, 2)
    assert shadow._budget.left == pytest.approx(-0.1 + 6.5 * 0.02 - 0.5)  # what there was by then, less the pass


@pytest.mark.anyio
async def test_time_that_a_shadow_spends_on_failing_counts(play) -> None:
    played = play(share=1.0, mode="shadow", timeout_seconds=0.05, shadow_time=0.001)
    played.free.clear()
    await played.ask("a")
    await asyncio.gather(*played.traffic.shadow._tasks)
    await played.ask("b")
    await played.settled()
    (seen,) = played.kept()[1]
    assert seen["fault"].startswith("TimeoutError")
    assert (played.traffic.shadow.copied, played.traffic.shadow.dropped) == (0, 1)


@given(
    st.floats(0.001, 1),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.5)), min_size=1, max_size=60),
)
def test_no_stretch_of_time_costs_more_than_its_share(share: float, passes: list[tuple[float, float]]) -> None:
    """But for what ten seconds before it have left, and for one pass, whose cost is known when it is done."""
    budget, now, spent = Budget(share, 0.0), 0.0, list[tuple[float, float]]()
    for gap, cost in passes:
        now += gap
        if budget.open(now):
            budget.spend(cost)
            spent.append((now, cost))
    longest = max((cost for _, cost in spent), default=0.0)
    for first in range(len(spent)):
        whole = 0.0
        for at, cost in spent[first:]:
            whole += cost
            assert whole <= share * (at - spent[first][0] + 10) + longest + 1e-9


@given(st.floats(0.01, 1), st.floats(0.001, 0.2))
def test_all_of_the_share_can_be_had(share: float, cost: float) -> None:
    """Passes as often as they may come take the share of the time, neither less."""
    budget, spent = Budget(share, 0.0), 0.0
    ticks = 4000
    for tick in range(ticks):
        if budget.open(tick / 10):
            budget.spend(cost)
            spent += cost
    assert spent >= min(share * (ticks - 1) / 10, cost * ticks) - 1e-9


@pytest.mark.anyio
async def test_a_shadow_that_raises_is_kept_as_a_fault(play) -> None:
    played = play(share=1.0, mode="shadow")
    played.models[CANARY].fails = ValueError("no")
    (made,) = await played.ask("a")
    await played.settled()
    (seen,) = played.kept()[1]
    assert (made.version, seen["version"], seen["kind"], seen["fault"]) == (
        CHAMPION,
        CANARY,
        "shadow",
        "ValueError: no",
    )


@pytest.mark.anyio
async def test_a_shadow_that_cannot_be_written_down_hurts_nobody(play, caplog, monkeypatch) -> None:
    played = play(share=1.0, mode="shadow")
    played.free.clear()
    await played.ask("a")

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(played.spool, "_write", full)
    played.free.set()
    await asyncio.wait(played.traffic.shadow._tasks)
    assert "could not be written down" in caplog.text


def test_a_version_that_could_not_be_loaded_is_kept(play) -> None:
    played = play(share=MOST)
    played.traffic.refused(2, "answers the golden inputs 0.3 away from its trainer")
    (seen,) = played.kept()[1]
    assert (seen["version"], seen["kind"], seen["batch_rows"]) == (2, "load", 0)
    assert seen["fault"].startswith("answers the golden inputs")
