"""A verb on a cluster elsewhere: pack its project, submit it as a job, follow it, answer as it answered there."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.console import say
from cluster.nodes import access
from cluster.session import remote_environment
from cluster.settings import Settings
from cluster.store import shared

from . import package
from .follow import Follower, attend, raise_unless_succeeded
from .submit import JOB, THERE, Jobs, Resources


@dataclass(frozen=True)
class Request:
    """A verb to run elsewhere. Without a `spec` nothing is packed and `arguments` say it all."""

    verb: str
    spec: Path | None = None
    overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Beside `kind`, `user` and `package`: what the caller knows, such as model, spec (its hash) and code version."""


def address(settings: Settings) -> str | None:
    """Where a verb runs when nobody says so: at RAY_API_SERVER_ADDRESS, but for a verb that is a job already."""
    return None if os.environ.get(JOB) else settings.address


def send(request: Request, address: str, settings: Settings) -> str:
    """Submit and return the job's id. Raises UserError for what may not be sent, ClusterError for a cluster's fault."""
    submission_id = f"rehone-{request.verb}-{secrets.token_hex(4)}"
    metadata = {"kind": request.verb, "user": getpass.getuser(), **request.metadata}
    with tempfile.TemporaryDirectory(prefix="rehone-") as folder:
        words, packed = _packed(request, Path(folder))
        environment = remote_environment(settings) | shared.sent_with(settings, submission_id)
        for name in sorted(environment.keys() - access.sendable(environment).keys()):
            say(f"{name} holds a password and is not sent: the job takes the cluster's own")
        return Jobs(address).submit(
            words,
            submission_id,
            access.sendable(environment),
            metadata | ({"package": packed.stem} if packed else {}),
            python=THERE,
            package=packed,
            resources=request.resources,
        )


def run(request: Request, address: str, settings: Settings, *, detach: bool = False, json: bool = False) -> Any:
    """Submit and follow; the log goes to stdout, with `json` to stderr and the verb's own result is returned.

    Raises JobFailedError with the job's exit code, DetachedError when the user leaves it to itself.
    """
    asked = Request(**{**vars(request), "arguments": (*request.arguments, "--json")}) if json else request
    submission_id = send(asked, address, settings)
    say(f"job {submission_id} at {address}")
    if detach:
        say(f"`rehone jobs logs -f {submission_id}` follows it, `rehone jobs stop {submission_id}` ends it")
        return {"submission_id": submission_id}
    kept: list[str] = []
    follower = Follower(Jobs(address), submission_id, _both(kept) if json else _out)
    job = attend(follower)
    result = result_of("".join(kept))
    if result is not None and job.status != "SUCCEEDED":  # the gate refused: the verb answered all the same
        print(_pretty(result))
    raise_unless_succeeded(job, address)
    return result


def result_of(log: str) -> Any:
    """What a verb with `--json` printed: the last value that starts at the beginning of a line; None when none did."""
    lines = log.splitlines()
    for start in reversed([i for i, line in enumerate(lines) if line in {"{", "["}]):
        try:
            return json.JSONDecoder().raw_decode("\n".join(lines[start:]))[0]
        except json.JSONDecodeError:  # a brace in a log
            continue
    return None


def _packed(request: Request, folder: Path) -> tuple[list[str], Path | None]:
    """The command's words, and the package with its digest for a name."""
    if request.spec is None:
        return [request.verb, *request.arguments], None
    made = package.project(request.spec, request.overrides)
    file = folder / "package.zip"
    packed = file.rename(folder / f"{package.write(made, file)}.zip")
    say(f"sending {len(made.files)} files, {packed.stat().st_size / 2**20:.1f} MiB of {made.folder}")
    for path in made.left:
        say(f"{path} is not sent: the job looks for it in the same place there")
    settings = [word for override in made.overrides for word in ("--set", override)]
    return [request.verb, made.spec, *settings, *request.arguments], packed


def _out(text: str) -> None:
    print(text, end="", flush=True)


def _both(kept: list[str]) -> Callable[[str], object]:
    def write(text: str) -> None:
        kept.append(text)
        print(text, end="", flush=True, file=sys.stderr)

    return write


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2)
