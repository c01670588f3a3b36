"""vLLM as a child process: `vllm serve` with a model's folder, asked over a Unix socket that only this process knows.

vLLM's own requirements do not go with ours, so it is in an environment of its own. Its executable is what REHONE_VLLM
names, else `vllm` on the PATH. It is there when a `Child` is made, and gone when that is let go or this process dies,
however it dies (`keeper.py`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from cluster.errors import ClusterError
from jobs.spec import VllmSpec

from . import keeper

log = logging.getLogger(__name__)

VARIABLE = "REHONE_VLLM"
NAME = "model"
"""What the model is called there."""

_PATIENCE = 600.0  # seconds to start: large weights are read, and on a GPU kernels compiled
_SAID_EVERY = 10.0
_POLL_SECONDS = 0.2
_LAST_WORDS = 2.0  # seconds for what was said before the end
_SILENCE = 300.0  # seconds without a token
_LINES = 200
# What it says in warnings is not what it died of.
_FAULT = re.compile(r"^(?!.*\b(?:INFO|WARNING)\b).*?(\b\w*(?:Error|Exception): .+)")


def found() -> Path | None:
    """vLLM's executable, where there is one."""
    path = shutil.which(os.environ.get(VARIABLE) or "vllm")
    return None if path is None else Path(path)


def executable() -> Path:
    """Raises ClusterError where there is none."""
    path, named = found(), os.environ.get(VARIABLE)
    if path is None:
        what = f"{VARIABLE} names {named}, which is no executable" if named else "no vllm is on the PATH of the replica"
        mend = f"python3 -m venv FOLDER; FOLDER/bin/pip install vllm; {VARIABLE}=FOLDER/bin/vllm on each node"
        raise ClusterError(what, where="serving.engine vllm", mend=mend)
    return path


def command(vllm: Path, model: Path, place: Path, longest: int, how: VllmSpec, *, gpu: bool) -> list[str]:
    """`place`: the socket's. `longest`: tokens of an input and its answer, where `how` says nothing else."""
    made = [str(vllm), "serve", str(model), "--served-model-name", NAME, "--uds", str(place)]
    made += ["--dtype", how.dtype, "--max-model-len", str(how.max_model_len or longest)]
    made += ["--tensor-parallel-size", str(how.tensor_parallel_size)]
    # Tokens go in and come out: texts are made and read by our own tokenizer, and sampling is what is asked for.
    made += ["--skip-tokenizer-init", "--generation-config", "vllm"]
    made += ["--disable-log-stats", "--disable-uvicorn-access-log"]
    # Compiling for a CPU takes a minute and a compiler at each start.
    return [*made, *(["--gpu-memory-utilization", str(how.gpu_memory_utilization)] if gpu else ["--enforce-eager"])]


def environment(vllm: Path, threads: int, room: int, given: Mapping[str, str]) -> dict[str, str]:
    """Without what says where our own packages are. `room`: bytes on a CPU for what is kept of texts.

    What is `given` of vLLM's own variables stays.
    """
    kept = {name: value for name, value in given.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    ours = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or two on a machine are bound to the same cores
        "VLLM_CPU_KVCACHE_SPACE": str(-(-room // 2**30)),  # whole GiB
        "TRITON_F32_DEFAULT": "ieee",  # or attention in fp32 is in TF32, of ten bits, on a GPU
    }
    found = f"{vllm.parent}{os.pathsep}{given.get('PATH', os.defpath)}"  # for what it compiles with
    return {**ours, **kept, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PATH": found}


class Child:
    """vLLM that answers. Safe on any thread. Raises ClusterError when it ends first or takes too long."""

    def __init__(
        self,
        model: Path,
        longest: int,
        how: VllmSpec,
        *,
        threads: int,
        room: int,
        gpu: bool,
        patience: float = _PATIENCE,
    ) -> None:
        vllm = executable()
        place = Path(tempfile.mkdtemp(prefix="rehone-vllm-"))  # a socket's path has 100 characters at most
        self._socket = place / "socket"
        begun = command(vllm, model, self._socket, longest, how, gpu=gpu)
        self._process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, str(place), *begun],
            env=environment(vllm, threads, room, os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._said: deque[str] = deque(maxlen=_LINES)
        self._mourned = False
        self._listener = threading.Thread(target=_listen, args=(self._process.stdout, self._said), daemon=True)
        self._listener.start()
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._socket), limits=limits),
            base_url="http://vllm",
            timeout=_SILENCE,
        )
        self.end = weakref.finalize(self, _end, self._process, self._http)
        self._await(patience)

    def ready(self) -> None:
        """Raises ClusterError when it has ended."""
        if self._process.poll() is not None:
            raise self._death()

    def complete(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The choices of a completion, in the order of its prompts. Raises ClusterError."""
        with self._reached():
            answer = self._http.post("/v1/completions", json=asked)
            self._require(answer)
        made: list[dict[str, Any]] = answer.json()["choices"]
        return sorted(made, key=lambda choice: choice["index"])

    def stream(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The choices of one prompt's completion, part by part. Whoever stops reading ends it. Raises ClusterError."""
        with self._reached(), self._http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
            if not answer.is_success:
                answer.read()
            self._require(answer)
            for line in answer.iter_lines():
                part = line.removeprefix("data: ")
                if part == "[DONE]":
                    return
                event = json.loads(part or '{"choices": []}')
                if "choices" not in event:
                    raise ClusterError(f"vLLM failed: {_message(event)}")
                yield from event["choices"]
            raise httpx.RemoteProtocolError("the answer was cut off")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        self.ready()
        try:
            yield
        except httpx.TransportError as error:
            # Its connections end a moment before it does.
            if isinstance(error, httpx.TimeoutException) or not self._ends():
                raise ClusterError(f"vLLM does not answer: {error}") from error
            raise self._death() from error

    def _ends(self, seconds: float = 5.0) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _require(self, answer: httpx.Response) -> None:
        if not answer.is_success:
            raise ClusterError(f"vLLM answered {answer.status_code}: {_message(answer.json())}")

    def _await(self, patience: float) -> None:
        began = said = time.monotonic()
        while not self._healthy():
            now = time.monotonic()
            if now - began > patience:
                self.end()
                raise ClusterError(f"vLLM was not up after {patience:g} s; at last: {self._last()}")
            if now - said > _SAID_EVERY:
                said = now
                log.info("vLLM starts, %.0f s so far: %s", now - began, self._last())
            time.sleep(_POLL_SECONDS)

    def _healthy(self) -> bool:
        self.ready()
        with socket.socket(socket.AF_UNIX) as trial:
            try:
                trial.connect(str(self._socket))
            except OSError:  # nothing listens yet
                return False
        return self._http.get("/health").is_success

    def _last(self) -> str:
        return self._said[-1] if self._said else "it has said nothing"

    def _death(self) -> ClusterError:
        self._listener.join(_LAST_WORDS)
        said = list(self._said)
        if not self._mourned:
            self._mourned = True
            log.error("vLLM ended with %s; its last lines:\n%s", self._process.returncode, "\n".join(said[-20:]))
        faults = [fault.group(1) for line in said if (fault := _FAULT.match(line))]
        why = faults[0] if faults else self._last()
        return ClusterError(f"vLLM ended with {self._process.returncode}: {why}", mend="see the replica's log")


def _message(tree: Mapping[str, Any]) -> str:
    error = tree.get("error", tree)
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _listen(lines: IO[str], said: deque[str]) -> None:
    with lines:
        said.extend(stripped for line in lines if (stripped := line.strip()))


def _end(process: subprocess.Popen[str], http: httpx.Client) -> None:
    http.close()
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
