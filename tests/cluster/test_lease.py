from __future__ import annotations

import multiprocessing
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from cluster.store.lease import Lease, Term
from cluster.store.storage import Storage

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ours(storage, clock) -> Lease:
    return Lease(storage, "watch-m", "ours", 60, clock)


@pytest.fixture
def theirs(ours) -> Lease:
    return replace(ours, holder="theirs")


def test_one_leads_and_the_other_waits(ours, theirs, clock):
    assert ours.current() is None
    assert ours.acquire()
    assert not theirs.acquire()
    assert theirs.current() == Term(1, "ours", BEGAN + timedelta(seconds=60))


def test_who_goes_on_in_time_goes_on_leading(ours, theirs, clock):
    for _ in range(20):
        assert ours.acquire()
        assert not theirs.acquire()
        clock.wait(25)
    assert len(ours.storage.list("leases/watch-m")) <= 2


def test_who_is_gone_is_followed_and_does_not_lead_when_it_returns(ours, theirs, clock):
    ours.acquire()
    clock.wait(61)
    assert theirs.acquire()
    assert not ours.acquire()
    assert ours.current().holder == "theirs"


def test_who_leaves_is_followed_at_once(ours, theirs):
    ours.acquire()
    theirs.release()  # not its own: nothing happens
    assert not theirs.acquire()
    ours.release()
    assert ours.current() is None
    assert theirs.acquire()


def test_names_do_not_meet(ours):
    assert ours.acquire()
    assert replace(ours, name="watch-n", holder="theirs").acquire()


def test_of_two_who_saw_the_same_end_one_gets_the_next_term(ours, theirs, clock):
    ours.acquire()
    clock.wait(61)
    last = theirs._last()
    assert ours.acquire()
    assert not theirs._begin(last.number + 1, clock() + timedelta(seconds=60))


def wants(root: str, holder: str, start, won) -> None:
    start.wait()
    if Lease(Storage(root), "watch-m", holder, 60).acquire():
        won.put(holder)


def test_of_many_processes_at_once_one_leads(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, won = context.Barrier(4), context.Queue()
    processes = [context.Process(target=wants, args=(str(tmp_path), str(i), start, won)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    leader = won.get(timeout=5)
    assert won.empty()
    assert Lease(Storage(str(tmp_path)), "watch-m", "", 60).current().holder == leader


@pytest.mark.slow  # an S3 server in a process of its own
def test_an_object_store_gives_a_term_once(bucket):
    ours = Lease(Storage(bucket), "watch-m", "ours", 60)
    assert ours.acquire()
    assert not replace(ours, holder="theirs").acquire()
    assert not ours.storage.create("leases/watch-m/000000000001.json", b"{}")
    ours.release()
    assert replace(ours, holder="theirs").acquire()
