"""An API server over real HTTP: knows its callers, enforces the rendered Roles, judges with the definitions, is watched.

It keeps pods and Ray's kinds. What the operator would write of a RayJob are its `steps`: it takes the next one whenever
somebody looks, so that nobody can look too late.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate

from tests.k8s import schemas

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace, name."""

TOKEN = "the-controller"
CONTROLLER = "system:serviceaccount:rehone-control:rehone-controller"
NAMESPACE = "rehone-training"
_KINDS = {("ray.io", "rayjobs"): "RayJob", ("ray.io", "rayclusters"): "RayCluster", ("", "pods"): "Pod"}


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Rules:
    """Who may do what, by the Roles and RoleBindings among some manifests, and how much, by the ResourceQuotas."""

    things: Iterable[Object] = ()

    def quotas(self, namespace: str) -> list[Object]:
        return [t for t in self.things if t["kind"] == "ResourceQuota" and t["metadata"]["namespace"] == namespace]

    def allow(self, user: str, verb: str, group: str, resource: str, namespace: str) -> bool:
        here = [one for one in self.things if one["metadata"].get("namespace") == namespace]
        bound = {
            one["roleRef"]["name"]
            for one in here
            if one["kind"] == "RoleBinding" and any(_account(subject) == user for subject in one["subjects"])
        }
        roles = (one for one in here if one["kind"] == "Role" and one["metadata"]["name"] in bound)
        return any(
            verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
            for role in roles
            for rule in role["rules"]
        )


def _account(subject: Object) -> str:
    return f"system:serviceaccount:{subject['namespace']}:{subject['name']}"


@dataclass
class State:
    """`kept` and the `events` that led to it. Whoever changes it holds `changed`, which tells those who watch."""

    rules: Rules
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: CONTROLLER})
    kept: dict[Key, Object] = field(default_factory=dict)
    events: list[tuple[str, Key, Object]] = field(default_factory=list)
    steps: list[dict[str, str]] = field(
        default_factory=lambda: [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}]
    )
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """User, verb and resource of everything that was let through."""
    forgotten: int = 0
    """Events up to this version are gone: who watches from before is told so."""
    url: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def objects(self) -> dict[str, Object]:
        """The RayJobs, by name."""
        return {name: thing for (plural, _, name), thing in self.kept.items() if plural == "rayjobs"}

    def put(self, key: Key, thing: Object, event: str = "MODIFIED") -> Object:
        with self.changed:
            thing = copy.deepcopy(thing)
            thing["metadata"]["resourceVersion"] = str(len(self.events) + 1)
            self.kept[key] = thing
            self._tell(event, key, thing)
            return thing

    def create(self, key: Key, thing: Object) -> Object:
        _judge(schemas.validate, thing)
        with self.changed:
            if key in self.kept:
                raise RefusedError(409, f'{key[0]} "{key[2]}" already exists')
            self._within_quota(key, thing["apiVersion"])
            return self.put(key, thing, "ADDED")

    def _within_quota(self, key: Key, version: str) -> None:
        """Of ResourceQuotas the count of kinds alone: what pods ask for would be asked of the operator's."""
        counted = f"count/{key[0]}.{version.partition('/')[0]}"
        used = sum((plural, namespace) == key[:2] for plural, namespace, _ in self.kept)
        for quota in self.rules.quotas(key[1]):
            limit = quota["spec"]["hard"].get(counted)
            if limit is not None and used >= int(limit):
                what = f'"{key[2]}" is forbidden: exceeded quota: {quota["metadata"]["name"]}'
                raise RefusedError(403, f"{what}, requested: {counted}=1, used: {counted}={used}, limited: {limit}")

    def get(self, key: Key) -> Object:
        with self.changed:
            if key not in self.kept:
                raise RefusedError(404, f'{key[0]} "{key[2]}" not found')
            self.step(key)
            return self.kept[key]

    def step(self, key: Key) -> bool:
        """What the operator says next of a RayJob; whether there was anything new."""
        if key[0] != "rayjobs":
            return False
        status = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if self.kept[key].get("status") == status:
            return False
        self.put(key, self.kept[key] | {"status": status})
        return True

    def patch(self, key: Key, operations: list[Object]) -> Object:
        with self.changed:
            old = self.get(key)
            new = copy.deepcopy(old)
            for one in operations:
                _apply(new, one)
            _judge(schemas.validate_change, new, old)
            return self.put(key, new)

    def delete(self, key: Key) -> Object:
        with self.changed:
            gone = self.get(key)
            del self.kept[key]
            self._tell("DELETED", key, gone)
            return gone

    def list(self, plural: str, namespace: str, chosen: Callable[[Object], bool]) -> Object:
        with self.changed:
            items = [t for (p, n, _), t in self.kept.items() if (p, n) == (plural, namespace) and chosen(t)]
            return {"kind": "List", "metadata": {"resourceVersion": str(len(self.events))}, "items": items}

    def watch(self, plural: str, namespace: str, since: int, seconds: float) -> Iterator[tuple[str, Object]]:
        """Events after version `since`, as they come. Raises RefusedError when those are no longer known."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self.changed:
                if since < self.forgotten:
                    raise RefusedError(410, f"too old resource version: {since}")
                if since == len(self.events) and not self._any_step(plural):
                    self.changed.wait(timeout=0.2)
                new, since = self.events[since:], len(self.events)
            yield from ((event, thing) for event, (p, n, _), thing in new if (p, n) == (plural, namespace))

    def _any_step(self, plural: str) -> bool:
        return any(self.step(key) for key in list(self.kept) if key[0] == plural == "rayjobs")

    def _tell(self, event: str, key: Key, thing: Object) -> None:
        self.events.append((event, key, thing))
        self.changed.notify_all()


def _judge(judge: Callable[..., None], *things: Object) -> None:
    try:
        judge(*things)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        raise RefusedError(422, f"{things[0]['kind']} is invalid: {error.message}") from None


def _apply(thing: Any, operation: Object) -> None:
    """One step of a JSON patch. `replace` makes what is missing, as the library of the API server does."""
    *path, last = operation["path"].strip("/").split("/")
    for key in path:
        thing = thing[int(key) if isinstance(thing, list) else key]
    if operation["op"] == "test" and thing.get(last) != operation["value"]:
        raise RefusedError(409, f"the test of {operation['path']} failed")
    if operation["op"] in {"add", "replace"}:
        thing[int(last) if isinstance(thing, list) else last] = operation["value"]


@dataclass(frozen=True)
class Asked:
    """A request's path and query, taken apart. Raises RefusedError for what is not there."""

    group: str
    plural: str
    namespace: str
    name: str
    query: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Asked:
        parts = urlsplit(url)
        words = parts.path.strip("/").split("/")
        group, rest = ("", words[2:]) if words[:2] == ["api", "v1"] else (words[1], words[3:])
        if len(rest) < 3 or (group, rest[2]) not in _KINDS or rest[0] != "namespaces":
            raise RefusedError(404, "the server could not find the requested resource")
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        return cls(group, rest[2], rest[1], rest[3] if len(rest) > 3 else "", query)

    @property
    def key(self) -> Key:
        return (self.plural, self.namespace, self.name)

    def chooses(self, thing: Object) -> bool:
        meta = thing["metadata"]
        fields = dict(one.split("=", 1) for one in self.query.get("fieldSelector", "").split(",") if one)
        labels = dict(one.split("=", 1) for one in self.query.get("labelSelector", "").split(",") if one)
        assert fields.keys() <= {"metadata.name"}
        return labels.items() <= meta.get("labels", {}).items() and fields.get("metadata.name") in {None, meta["name"]}


class Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """No line a request."""

    def do_POST(self) -> None:
        body = self._body()

        def create(asked: Asked) -> Object:
            if _KINDS[asked.group, asked.plural] != body["kind"] or body["metadata"]["namespace"] != asked.namespace:
                raise RefusedError(400, "the object is not what the path says")
            return self.state.create((asked.plural, asked.namespace, body["metadata"]["name"]), body)

        self._answer("create", create)

    def do_PATCH(self) -> None:
        body = self._body()
        self._answer("patch", lambda asked: self.state.patch(asked.key, body))

    def do_DELETE(self) -> None:
        self._answer("delete", lambda asked: self.state.delete(asked.key))

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if query.get("watch", [""])[0].lower() == "true":
            self._answer("watch", self._stream)
        elif urlsplit(self.path).path.rstrip("/").endswith(tuple(plural for _, plural in _KINDS)):
            self._answer("list", lambda asked: self.state.list(asked.plural, asked.namespace, asked.chooses))
        else:
            self._answer("get", lambda asked: self.state.get(asked.key))

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _allowed(self, verb: str) -> Asked:
        """Raises RefusedError: 401 before anything else is looked at, 403 before whether it is there."""
        user = self.state.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if user is None:
            raise RefusedError(401, "Unauthorized")
        asked = Asked.parse(self.path)
        if not self.state.rules.allow(user, verb, asked.group, asked.plural, asked.namespace):
            what = f'{asked.plural}.{asked.group or "v1"} is forbidden: User "{user}" cannot {verb}'
            raise RefusedError(403, f'{what} resource "{asked.plural}" in the namespace "{asked.namespace}"')
        self.state.asked.append((user, verb, asked.plural))
        return asked

    def _answer(self, verb: str, do: Callable[[Asked], Object | None]) -> None:
        try:
            status, body = 200, do(self._allowed(verb))
        except RefusedError as refused:
            status, body = refused.status, _status(refused)
        if body is None:
            return
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, asked: Asked) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since, seconds = int(asked.query.get("resourceVersion", 0)), float(asked.query.get("timeoutSeconds", 60))
        try:
            for event, thing in self.state.watch(asked.plural, asked.namespace, since, seconds):
                if asked.chooses(thing):
                    self._chunk({"type": event, "object": thing})
        except RefusedError as refused:
            self._chunk({"type": "ERROR", "object": _status(refused)})
        except ConnectionError:  # whoever watched has seen enough
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")


def _status(refused: RefusedError) -> Object:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return said | {"message": refused.message, "reason": refused.message, "code": refused.status}


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def serving(
    things: Iterable[Object], at: socket | None = None, certificate: ssl.SSLContext | None = None
) -> Iterator[State]:
    """The Roles among `things` hold. On the socket that is given, which listens already; else on a port of its own."""
    state = State(Rules(list(things)))
    handler = type("Bound", (Handler,), {"state": state})
    with _Server(("127.0.0.1", 0), handler, bind_and_activate=at is None) as server:
        if at is not None:
            server.socket.close()
            server.socket = at
        if certificate is not None:
            server.socket = certificate.wrap_socket(server.socket, server_side=True)
        host, port = server.socket.getsockname()[:2]
        state.url = f"{'https' if certificate else 'http'}://{host}:{port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
