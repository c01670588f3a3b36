"""Which requests go together, and that each gets its own answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError
from jobs.tasks.task import Output
from serve.engines.batching import Batcher, Waiting, chosen
from serve.engines.engine import Answered, Engine

from . import fakes


class Slow(fakes.FakePredictor):
    """Works only when it is let; cannot read "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.let = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[Output]:
        self.begun.set()
        assert self.let.wait(10)
        if "bad" in texts:
            self.calls.append(list(texts))
            raise ValueError("it says bad")
        return super().__call__(texts)


def waiting(*inputs: Sequence[str]) -> list[Waiting]:
    nobody: Any = None
    return [Waiting(nobody, texts, nobody) for texts in inputs]


def test_all_go_together_where_there_is_room() -> None:
    three = waiting(["a"], ["b" * 500, "c"], ["d"])
    assert chosen(three, 4) == (three, [])


def test_with_the_first_go_those_most_like_it_in_length() -> None:
    long, short, longer, shorter = waiting(["x" * 100], ["x" * 9], ["x" * 120], ["x" * 8])
    assert chosen([short, long, longer, shorter], 2) == ([short, shorter], [long, longer])
    assert chosen([long, short, shorter, longer], 2) == ([long, longer], [short, shorter])


def test_a_request_larger_than_a_batch_goes_alone() -> None:
    large, small = waiting(["a"] * 9, ["a"])
    assert chosen([large, small], 4) == ([large], [small])
    assert chosen([small, large], 4) == ([small], [large])


@given(
    st.lists(st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=6), min_size=1, max_size=40),
    st.integers(1, 32),
)
def test_nobody_is_forgotten_or_waits_for_ever(inputs: list[list[str]], most: int) -> None:
    every = waiting(*inputs)
    left, batches = every, list[list[Waiting]]()
    while left:
        first = left[0]
        batch, left = chosen(left, most)
        assert batch[0] is first
        assert len(batch) == 1 or sum(len(one.inputs) for one in batch) <= most
        batches.append(batch)
    assert sorted(id(one) for batch in batches for one in batch) == sorted(map(id, every))


def run(predictor: Slow, engine: Engine | None, *inputs: list[str]) -> list[Answered | BaseException]:
    """The first request occupies the engine, the others come meanwhile."""

    async def asked() -> list[Answered | BaseException]:
        batcher = Batcher("test", 8)
        answer = batcher.lane(lambda: engine)
        first = asyncio.create_task(answer(inputs[0]))
        if engine is not None:
            await asyncio.to_thread(predictor.begun.wait, 10)
        others = [asyncio.create_task(answer(texts)) for texts in inputs[1:]]
        await asyncio.sleep(0)
        predictor.let.set()
        made = await asyncio.gather(first, *others, return_exceptions=True)
        await asyncio.to_thread(batcher.stop)
        return made

    return asyncio.run(asked())


def lengths(answered: Answered | BaseException) -> list[float]:
    assert isinstance(answered, Answered)
    return [float(output.embedding[0]) for output in answered.outputs]


def test_what_waits_goes_together_and_each_gets_its_own_answers() -> None:
    predictor = Slow()
    made = run(predictor, Engine(fakes.version(1), predictor), ["a"], ["bb", "ccc"], ["dddd"])
    assert predictor.calls == [["a"], ["bb", "ccc", "dddd"]]
    assert [lengths(one) for one in made] == [[1], [2, 3], [4]]
    assert [one.batch_rows for one in made if isinstance(one, Answered)] == [1, 3, 3]


def test_a_fault_of_one_request_is_its_own() -> None:
    predictor = Slow()
    made = run(predictor, Engine(fakes.version(1), predictor), ["a"], ["bb"], ["bad"], ["dddd"])
    assert predictor.calls == [["a"], ["bb", "bad", "dddd"], ["bb"], ["bad"], ["dddd"]]
    assert isinstance(made[2], ValueError)
    assert [lengths(made[at]) for at in (0, 1, 3)] == [[1], [2], [4]]


def test_without_an_engine_it_says_so() -> None:
    (made,) = run(Slow(), None, ["a"])
    assert isinstance(made, ClusterError)


def test_who_has_gone_takes_no_turn_and_what_waits_at_the_end_is_answered() -> None:
    predictor = Slow()

    async def asked() -> Answered:
        batcher = Batcher("test", 8)
        answer = batcher.lane(lambda: Engine(fakes.version(1), predictor))
        first = asyncio.create_task(answer(["a"]))
        await asyncio.to_thread(predictor.begun.wait, 10)
        gone, last = (asyncio.create_task(answer([text])) for text in ("gone", "last"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        predictor.let.set()
        await asyncio.to_thread(batcher.stop)
        await first
        return await last

    assert lengths(asyncio.run(asked())) == [4]
    assert predictor.calls == [["a"], ["last"]]


@pytest.mark.parametrize("most", [1, 3])
def test_batches_are_bounded(most: int) -> None:
    predictor = fakes.FakePredictor()

    async def asked() -> list[Answered]:
        batcher = Batcher("test", most)
        answer = batcher.lane(lambda: Engine(fakes.version(1), predictor))
        made = await asyncio.gather(*(answer([str(at)]) for at in range(10)))
        await asyncio.to_thread(batcher.stop)
        return list(made)

    assert len(asyncio.run(asked())) == 10
    assert [text for call in predictor.calls for text in call] == [str(at) for at in range(10)]
    assert max(map(len, predictor.calls)) <= most


class SharedBase:
    """Answers for several models at once, each in its own way."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, ...]]] = []

    def answer(self, asked: Sequence[tuple[Any, Sequence[str]]]) -> list[list[Output]]:
        self.asked.append([tuple(inputs) for _, inputs in asked])
        return [predictor(inputs) for predictor, inputs in asked]


def test_requests_of_models_that_share_a_base_are_one_batch_and_a_broken_one_fails_alone() -> None:
    base, busy = SharedBase(), Slow()
    made = {"busy": busy, "one": fakes.FakePredictor(0.6), "two": fakes.FakePredictor(0.9)}
    made["broken"] = fakes.FakePredictor()
    made["broken"].fails = RuntimeError("its head is off")
    for predictor in made.values():
        predictor.base = base
    engines = {name: Engine(fakes.version(1), predictor) for name, predictor in made.items()}

    async def asked() -> list[Answered | BaseException]:
        batcher = Batcher("test", 8)
        lanes = {name: batcher.lane(lambda name=name: engines[name]) for name in engines}
        first = asyncio.create_task(lanes["busy"](["first"]))
        await asyncio.to_thread(busy.begun.wait, 10)
        others = [("one", ["a", "bb"]), ("two", ["ccc"]), ("broken", ["x"]), ("one", ["dddd"])]
        tasks = [asyncio.create_task(lanes[name](texts)) for name, texts in others]
        await asyncio.sleep(0)
        busy.let.set()
        await first
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        tasks = [asyncio.create_task(lanes[name](["again"])) for name in ("one", "two")]
        answers += await asyncio.gather(*tasks)
        await asyncio.to_thread(batcher.stop)
        return answers

    one, two, broken, more, *again = asyncio.run(asked())
    # Together first, those of one model as one; then each alone, for the sake of the broken one.
    assert base.asked[0] == [("a", "bb", "dddd"), ("ccc",), ("x",)]
    assert isinstance(broken, RuntimeError)
    assert [lengths(answer) for answer in (one, two, more)] == [[1, 2], [3], [4]]
    shares = [answer.outputs[0].confidence for answer in (one, two, *again) if isinstance(answer, Answered)]
    assert shares == [0.6, 0.9, 0.6, 0.9]
