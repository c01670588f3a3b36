"""vLLM as a process, played by `vllm_fake.py`."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.errors import ClusterError
from jobs.spec import VllmSpec
from serve.engines import child
from serve.engines.child import Child


def started(model: Path, patience: float = 60.0) -> Child:
    return Child(model, 60, VllmSpec(), threads=1, room=2**30, gpu=False, patience=patience)


def asked(**more: Any) -> dict[str, Any]:
    return {"prompt": [[5, 6, 7]], "max_tokens": 9, "stop_token_ids": [3], "seed": None, **more}


def pids(model: Path) -> list[int]:
    return [int(pid) for pid in (model / "pids.txt").read_text().split()]


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


def gone(model: Path) -> bool:
    return all(map(ended, pids(model)))


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # also one that ends as it is looked at
        return True


@pytest.mark.usefixtures("vllm")
def test_it_answers_in_order_and_is_gone_when_it_is_let_go(tmp_path: Path) -> None:
    made = started(tmp_path)
    made.ready()
    choices = made.complete(asked(prompt=[[5, 6], [7]]))
    assert [choice["token_ids"] for choice in choices] == [[5, 6, 3], [7, 3]]
    assert [token for part in made.stream(asked()) for token in part["token_ids"]] == [5, 6, 7, 3]
    with pytest.raises(ClusterError, match="vLLM answered 400: max_tokens must be at least 1"):
        made.complete(asked(max_tokens=0))
    with pytest.raises(ClusterError, match="vLLM answered 400: max_tokens must be at least 1"):
        next(made.stream(asked(max_tokens=0)))
    place = Path(made._process.args[3])
    assert place.is_dir()
    assert not gone(tmp_path)
    del made
    gc.collect()  # what was raised above holds it in a ring
    assert eventually(lambda: gone(tmp_path)), "with all that it had started"
    assert eventually(lambda: not place.exists())


@pytest.mark.usefixtures("vllm")
def test_one_that_cannot_start_says_why_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "fake.txt").write_text("dies")
    with pytest.raises(ClusterError, match=r"^vLLM ended with 3: RuntimeError: no kernel for this \(see the"):
        started(tmp_path)
    assert gone(tmp_path), "what it had started, too"
    (tmp_path / "fake.txt").write_text("never")
    with pytest.raises(ClusterError, match="vLLM was not up after 2 s; at last: still loading"):
        started(tmp_path, patience=2)
    assert gone(tmp_path)


@pytest.mark.usefixtures("vllm")
def test_a_death_fails_what_is_being_written_and_is_told_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = started(tmp_path)
    parts = made.stream(asked(seed=13))
    assert next(parts)["token_ids"] == [5]
    with pytest.raises(ClusterError, match="vLLM ended with 3: ValueError: unlucky"):
        list(parts)
    assert "its last lines:\nValueError: unlucky" in caplog.text
    for ask in (made.ready, lambda: made.complete(asked()), lambda: list(made.stream(asked()))):
        with pytest.raises(ClusterError, match="vLLM ended with 3"):
            ask()


@pytest.mark.usefixtures("vllm")
def test_one_that_is_killed_is_found_dead(tmp_path: Path) -> None:
    made = started(tmp_path)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    assert eventually(lambda: made._process.poll() is not None)
    with pytest.raises(ClusterError, match="vLLM ended with 137: it has said nothing"):
        made.complete(asked())
    assert eventually(lambda: gone(tmp_path)), "and what it had started has gone with it"


@pytest.mark.usefixtures("vllm")
def test_it_does_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    code = f"from serve.engines.child import Child; from jobs.spec import VllmSpec; from pathlib import Path; import time\nc = Child(Path({str(tmp_path)!r}), 60, VllmSpec(), threads=1, room=1, gpu=False)\nprint(c._process.args[3], flush=True); time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout as said:
        place = Path(said.readline().strip())
    assert not gone(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert eventually(lambda: gone(tmp_path))
    assert eventually(lambda: not place.exists())


def test_without_vllm_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(child.VARIABLE, raising=False)
    with pytest.raises(ClusterError, match=r"^serving.engine vllm: no vllm is on the PATH of the replica \(python3 -m"):
        child.executable()
    monkeypatch.setenv(child.VARIABLE, "/nowhere/vllm")
    with pytest.raises(ClusterError, match="REHONE_VLLM names /nowhere/vllm, which is no executable"):
        child.executable()
    assert child.found() is None
    (tmp_path / "vllm").symlink_to(sys.executable)
    monkeypatch.delenv(child.VARIABLE)
    assert child.executable() == tmp_path / "vllm"


def test_what_is_started_is_told_of_its_device_and_of_nothing_of_ours() -> None:
    vllm = Path("/opt/vllm/bin/vllm")
    cpu, gpu = (child.command(vllm, Path("/m"), Path("/s"), 192, VllmSpec(), gpu=gpu) for gpu in (False, True))
    assert cpu[:3] == ["/opt/vllm/bin/vllm", "serve", "/m"]
    assert cpu[cpu.index("--max-model-len") + 1] == "192"
    assert "--enforce-eager" in cpu
    assert "--gpu-memory-utilization" not in cpu
    assert float(gpu[gpu.index("--gpu-memory-utilization") + 1]) * 3 <= 0.9, "champion, canary and one that is asked"
    given = {"PATH": "/bin", "PYTHONPATH": "/ours", "VIRTUAL_ENV": "/v", "OMP_NUM_THREADS": "8", "X": "1"}
    made = child.environment(vllm, 2, 3 * 2**30 - 1, given)
    assert made["PATH"] == f"/opt/vllm/bin{os.pathsep}/bin"
    assert made["OMP_NUM_THREADS"] == "2"
    assert made["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert made["X"] == "1"
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & made.keys()
    assert child.environment(vllm, 2, 1, {"VLLM_CPU_KVCACHE_SPACE": "9"})["VLLM_CPU_KVCACHE_SPACE"] == "9"


def option(made: list[str], name: str) -> str:
    return made[made.index(name) + 1]


def test_what_the_spec_says_of_vllm_is_what_it_is_told() -> None:
    how = VllmSpec(gpu_memory_utilization=0.85, max_model_len=4096, dtype="bfloat16", tensor_parallel_size=2)
    places = (Path("/opt/vllm/bin/vllm"), Path("/m"), Path("/s"))
    told, plain = (child.command(*places, 192, spec, gpu=True) for spec in (how, VllmSpec()))
    names = ("--gpu-memory-utilization", "--max-model-len", "--dtype", "--tensor-parallel-size")
    assert [option(told, name) for name in names] == ["0.85", "4096", "bfloat16", "2"]
    assert [option(plain, name) for name in names] == ["0.3", "192", "float32", "1"]


def test_fp32_is_fp32_where_nobody_says_otherwise() -> None:
    name, vllm = "TRITON_F32_DEFAULT", Path("/opt/vllm/bin/vllm")
    assert child.environment(vllm, 1, 1, {})[name] == "ieee"
    assert child.environment(vllm, 1, 1, {name: "tf32"})[name] == "tf32"


def test_the_fake_is_the_standard_librarys() -> None:
    imported = {
        line.split()[1].split(".")[0]
        for line in Path(__file__).with_name("vllm_fake.py").read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported <= set(sys.stdlib_module_names)
