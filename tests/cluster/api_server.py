"""An API server for RayJobs over real HTTP: knows its callers, enforces a Role, judges with the definition, keeps state.

`steps` are the statuses that a RayJob goes through, one a GET, as the operator would write them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jsonschema

from tests.k8s import schemas

TOKEN = "the-controller"
NAMESPACE = "rehone-training"


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclass
class State:
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: list[dict[str, str]] = field(
        default_factory=lambda: [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}]
    )
    url: str = ""

    def create(self, thing: dict[str, Any]) -> dict[str, Any]:
        try:
            schemas.validate(thing)
        except jsonschema.ValidationError as error:
            raise RefusedError(422, f"RayJob is invalid: {error.message}") from None
        name = thing["metadata"]["name"]
        if name in self.objects:
            raise RefusedError(409, f'rayjobs.ray.io "{name}" already exists')
        self.objects[name] = thing
        return thing

    def get(self, name: str) -> dict[str, Any]:
        if name not in self.objects:
            raise RefusedError(404, f'rayjobs.ray.io "{name}" not found')
        step = self.steps[0] if len(self.steps) == 1 else self.steps.pop(0)
        return self.objects[name] | {"status": step}


class Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_: Any) -> None:
        """No line a request."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(lambda _: self.state.create(json.loads(self.rfile.read(length))))

    def do_GET(self) -> None:
        self._answer(self.state.get)

    def _name(self) -> str:
        """The name in the path, nothing for the collection. Raises RefusedError."""
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "Unauthorized")
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:3] != ["apis", "ray.io", "v1"]:
            raise RefusedError(404, "the server could not find the requested resource")
        if parts[3:6] != ["namespaces", NAMESPACE, "rayjobs"]:
            raise RefusedError(403, f'rayjobs.ray.io is forbidden: User cannot do that in the namespace "{parts[4]}"')
        return parts[6] if len(parts) > 6 else ""

    def _answer(self, do: Callable[[str], dict[str, Any]]) -> None:
        try:
            status, body = 200, do(self._name())
        except RefusedError as refused:
            status = refused.status
            body = {"kind": "Status", "status": "Failure", "message": refused.message, "code": status}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[State]:
    state = State()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state})) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
