"""`vllm serve MODEL --uds SOCKET ...` as far as it is asked here, in the standard library: it writes each prompt again.

MODEL/fake.txt says how it starts: `up`, `dies`, `never`. MODEL/pids.txt gets its own pid and that of a process it starts, MODEL/asked.jsonl what it was asked. A text with seed 2 waits after its first token until two are being written;
with seed 13 it dies there. A token's chance is 0.5; those of a prompt's are in MODEL/chances.json, by the prompt.
"""

from __future__ import annotations

import http.server
import json
import math
import os
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODEL = Path(sys.argv[2])
BOTH = threading.Barrier(2, timeout=30)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def address_string(self) -> str:
        return ""

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with (MODEL / "asked.jsonl").open("a") as lines:
            lines.write(f"{json.dumps(asked)}\n")
        if asked["max_tokens"] < 1:
            self._answer(400, {"error": {"message": "max_tokens must be at least 1"}})
        elif asked.get("stream"):
            self._stream(asked)
        else:
            made = [choice(at, written(prompt, asked)) for at, prompt in enumerate(asked["prompt"])]
            if "prompt_logprobs" in asked:
                known = json.loads((MODEL / "chances.json").read_text())
                for one, prompt in zip(made, asked["prompt"], strict=True):
                    pairs = zip(prompt[1:], known[str(prompt)], strict=True)
                    one["prompt_logprobs"] = [None, *({str(token): {"logprob": chance}} for token, chance in pairs)]
            self._answer(200, {"choices": made[::-1]})

    def _answer(self, status: int, tree: dict[str, Any]) -> None:
        body = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        for at, token in enumerate(written(asked["prompt"][0], asked)):
            if at == 1 and asked["seed"] == 2:
                BOTH.wait()
            if at == 1 and asked["seed"] == 13:
                print("ValueError: unlucky", flush=True)
                os._exit(3)
            self._event({"choices": [choice(0, [token])]})
        self._event({"choices": [{"index": 0, "token_ids": [], "logprobs": None, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, tree: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(tree)}\n\n".encode())
        self.wfile.flush()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def written(prompt: list[int], asked: dict[str, Any]) -> list[int]:
    (end,) = asked.get("stop_token_ids", [-1])
    whole = [*prompt, end]
    return whole[: whole.index(end) + 1][: asked["max_tokens"]]


def choice(at: int, tokens: list[int]) -> dict[str, Any]:
    return {"index": at, "token_ids": tokens, "logprobs": {"token_logprobs": [math.log(0.5)] * len(tokens)}}


def how() -> str:
    return (MODEL / "fake.txt").read_text() if (MODEL / "fake.txt").exists() else "up"


def main() -> None:
    child = subprocess.Popen(["sleep", "600"])
    (MODEL / "pids.txt").write_text(f"{os.getpid()} {child.pid}")
    if how() == "dies":
        print("WARNING not enough files, OSError: [Errno 24]\nRuntimeError: no kernel for this\nand more", flush=True)
        os._exit(3)
    if how() == "never":
        print("still loading", flush=True)
        time.sleep(600)
    Server(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()


if __name__ == "__main__":
    main()
