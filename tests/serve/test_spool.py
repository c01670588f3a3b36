from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.store.storage import Storage
from serve.log import spool as spool_
from serve.log.predictions import FEEDBACK, OBSERVATIONS, PREDICTIONS, Feedback, feedback_log, prediction_log, utc_now
from serve.log.spool import Batch, Flusher, Spool, _own, adopt

from .test_predictions import prediction


class Killed(BaseException):
    """Where a test ends the process, in thought."""


class FakeTable:
    """Remembers transactions as Delta does; `dies` kills before or after the append with that number of calls."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.landed: dict[str, int] = {}
        self.calls = 0
        self.dies: tuple[int, str] | None = None

    def append_all(self, batches: Sequence[Batch]) -> int:
        self.calls += 1
        if self.dies == (self.calls, "before"):
            raise Killed
        before, fresh = dict(self.landed), 0
        for rows, (app, number) in batches:
            if before.get(app, -1) < number:
                self.rows += rows
                self.landed[app] = max(number, self.landed.get(app, -1))
                fresh += 1
        if self.dies == (self.calls, "after"):
            raise Killed
        return fresh


def tables() -> dict[str, Any]:
    return {PREDICTIONS: FakeTable(), FEEDBACK: FakeTable(), OBSERVATIONS: FakeTable()}


def said(prediction_id: str) -> Feedback:
    return Feedback(prediction_id, utc_now(), "m", "positive")


def ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(row["prediction_id"] for row in rows)


def test_what_was_appended_is_moved_once_and_its_file_is_gone(tmp_path: Path) -> None:
    spool, into = Spool(tmp_path), tables()
    made = [prediction() for _ in range(3)]
    spool.append(made)
    spool.append([said(made[0].prediction_id)])
    assert spool.flush(into) == 4
    assert spool.flush(into) == 0
    assert ids(into[PREDICTIONS].rows) == sorted(p.prediction_id for p in made)
    assert ids(into[FEEDBACK].rows) == [made[0].prediction_id]
    spool.close()
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(
    batches=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    dies=st.tuples(st.integers(1, 4), st.sampled_from(["before", "after"])),
    table=st.sampled_from([PREDICTIONS, FEEDBACK]),
)
def test_killed_at_any_append_every_row_lands_once(tmp_path_factory, batches, dies, table) -> None:
    folder, into = tmp_path_factory.mktemp("spool"), tables()
    into[table].dies = dies
    spool, sent = Spool(folder), []
    for size in batches:
        made = [prediction() for _ in range(size)]
        spool.append([*made, said(made[0].prediction_id)])
        sent += made
        try:
            spool.flush(into)
        except Killed:
            break
    os.close(spool._owner)  # as the kernel does for a process that is gone
    into[table].dies = None
    adopt(folder, into)
    assert ids(into[PREDICTIONS].rows) == sorted(p.prediction_id for p in sent)
    assert list(folder.iterdir()) == []


def test_a_torn_last_line_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    spool, into = Spool(tmp_path), tables()
    made = prediction()
    spool.append([made])
    with spool._open_path.open("ab") as file:
        file.write(b'{"table": "predictions", "prediction_id": "m.1.')
    spool.flush(into)
    assert ids(into[PREDICTIONS].rows) == [made.prediction_id]
    spool.close()


def test_a_living_owner_is_not_robbed(tmp_path: Path) -> None:
    spool, into = Spool(tmp_path), tables()
    spool.append([prediction()])
    assert adopt(tmp_path, into) == 0
    assert spool.flush(into) == 1
    spool.close()


def test_a_failing_table_keeps_the_order_and_loses_nothing(tmp_path: Path) -> None:
    class Down(FakeTable):
        def append_all(self, batches: Sequence[Batch]) -> int:
            if self.calls < 2:
                self.calls += 1
                raise OSError("no such bucket")
            return super().append_all(batches)

    into = tables() | {PREDICTIONS: Down()}
    spool, made = Spool(tmp_path), [prediction() for _ in range(3)]
    for row in made[:2]:
        spool.append([row])
        with pytest.raises(OSError, match="no such bucket"):
            spool.flush(into)
    spool.append([made[2]])
    assert spool.flush(into) == 3
    assert [row["prediction_id"] for row in into[PREDICTIONS].rows] == [p.prediction_id for p in made]
    spool.close()


def orphan(folder: Path) -> str:
    """The id of a prediction that a process which is gone has left."""
    spool, made = Spool(folder), prediction()
    spool.append([made])
    os.close(spool._owner)
    return made.prediction_id


def test_an_orphan_that_could_not_be_moved_is_moved_the_next_time(tmp_path: Path) -> None:
    left, into = orphan(tmp_path), tables()
    with pytest.raises(KeyError):
        adopt(tmp_path, {})
    assert adopt(tmp_path, into) == 1
    assert ids(into[PREDICTIONS].rows) == [left]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_orphan_holds_up_neither_others_nor_the_living(tmp_path: Path, caplog) -> None:
    left = [orphan(tmp_path) for _ in range(3)]
    damaged = min(tmp_path.glob("*.open"))
    kept = damaged.read_text()
    damaged.write_text("\x00\x00\n" + kept)
    spool, into, made = Spool(tmp_path), tables(), prediction()
    spool.append([made])
    Flusher(spool, tmp_path, into, seconds=60).stop()
    logged = ids(into[PREDICTIONS].rows)
    assert made.prediction_id in logged
    assert len(set(left) & set(logged)) == 2
    assert [path.read_text() for path in tmp_path.glob("*.sealed")] == ["\x00\x00\n" + kept]
    assert damaged.stem.split(".")[0] in caplog.text


def test_all_that_a_node_has_sealed_is_one_commit(tmp_path: Path) -> None:
    spools, into = [Spool(tmp_path) for _ in range(8)], tables()
    sent = []
    for spool in spools * 2:  # two sealed files of each
        sent.append(prediction())
        spool.append([sent[-1]])
        spool.seal()
    assert spools[3].flush(into) == 16
    assert into[PREDICTIONS].calls == 1
    assert ids(into[PREDICTIONS].rows) == ids([p.to_row() for p in sent])
    for spool in spools:
        spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_memory_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_, "_PORTION", 1)
    spool, into = Spool(tmp_path), tables()
    for _ in range(3):
        spool.append([prediction()])
        spool.seal()
    assert (spool.flush(into), into[PREDICTIONS].calls) == (3, 3)
    spool.close()


def test_a_lock_that_was_removed_before_it_was_held_is_made_again(tmp_path: Path) -> None:
    path, held = tmp_path / "x.lock", []
    adopter = _own(path)
    owner = threading.Thread(target=lambda: held.append(_own(path)))
    owner.start()
    time.sleep(0.2)
    path.unlink()
    os.close(adopter)
    owner.join()
    assert path.stat().st_ino == os.fstat(held[0]).st_ino
    os.close(held[0])


def test_the_flusher_goes_on_after_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Once(FakeTable):
        def append_all(self, batches: Sequence[Batch]) -> int:
            if not self.calls:
                self.calls += 1
                raise OSError("away for a moment")
            return super().append_all(batches)

    into = tables() | {PREDICTIONS: Once()}
    spool = Spool(tmp_path)
    made = prediction()
    spool.append([made])
    flusher = Flusher(spool, tmp_path, into, seconds=0.01)
    until = time.monotonic() + 10
    while not into[PREDICTIONS].rows and time.monotonic() < until:
        time.sleep(0.01)
    flusher.stop()
    assert ids(into[PREDICTIONS].rows) == [made.prediction_id]
    assert "rows stay spooled" in caplog.text


_WRITER = """
import sys, itertools
from pathlib import Path
from cluster.store.storage import Storage
from serve.log.predictions import FEEDBACK, PREDICTIONS, feedback_log, prediction_log
from serve.log.spool import Flusher, Spool
from tests.serve.test_predictions import prediction
folder, storage = Path(sys.argv[1]), Storage(sys.argv[2])
spool = Spool(folder)
Flusher(spool, folder, {PREDICTIONS: prediction_log(storage), FEEDBACK: feedback_log(storage)}, 0.05)
for _ in itertools.count():
    made = prediction()
    spool.append([made])
    print(made.prediction_id, flush=True)  # the acknowledgement
"""


@pytest.mark.long
def test_kill_9_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three replicas of one node, each moving what all have sealed, killed one after the other."""
    folder, storage, acknowledged = tmp_path / "spool", Storage(str(tmp_path / "store")), []
    outs = [tmp_path / name for name in "abc"]
    writers = []
    for out in outs:
        with out.open("w") as file:
            command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(folder), storage.root]
            writers.append(subprocess.Popen(command, stdout=file, cwd=Path.cwd()))
    until = time.monotonic() + 60
    while not all(out.stat().st_size for out in outs) and time.monotonic() < until:
        time.sleep(0.05)
    for writer, out in zip(writers, outs, strict=True):
        time.sleep(0.6)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        acknowledged += [line.strip() for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
    adopt(folder, {PREDICTIONS: prediction_log(storage), FEEDBACK: feedback_log(storage)})
    logged = prediction_log(storage).read(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert len(acknowledged) > 100
    assert len(logged) == len(set(logged))
    assert set(acknowledged) <= set(logged)
