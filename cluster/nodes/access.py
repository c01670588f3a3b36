"""The token that a cluster asks for: where it is looked for, and how a new one is kept.

The places and their order are Ray's own, so that `ray` on the command line sees the same token. It travels as an HTTP
header only: never in a job's environment, metadata or command line.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("HOME") or Path.home()) / ".ray" / "auth_token"


def token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token in use, None when there is none or authentication is switched off. Raises UserError."""
    if environment.get(MODE, "").lower() == "disabled":
        return None
    return kept_token(environment)


def kept_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token that is kept here, whether or not it is used. Raises UserError for a path that leads nowhere."""
    if environment.get(TOKEN):
        return environment[TOKEN].strip()
    named = environment.get(TOKEN_PATH)
    path = Path(named).expanduser() if named else default_path(environment)
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        if named:
            raise UserError(
                "no such file", where=f"{TOKEN_PATH}={named}", mend="name the file with the token"
            ) from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a token: {error}", where=str(path)) from None


def bearer(found: str | None) -> dict[str, str]:
    """The header that a request to a cluster carries."""
    return {"Authorization": f"Bearer {found}"} if found else {}


def ensure_token(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Make a token that only this user can read, unless there is one. The file made, None when nothing was."""
    if kept_token(environment) is not None:
        return None
    path = default_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Never a moment in which others can read it, which `write_text` and a later chmod would leave.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return path


def holds_password(value: str) -> bool:
    """Whether a URL carries a user's password, as in `postgresql://user:password@host`."""
    return bool(_PASSWORD.search(value))


def sendable(values: Mapping[str, str]) -> dict[str, str]:
    """Those of some environment variables that hold no password: the job API shows what it is sent to everybody."""
    return {name: value for name, value in values.items() if not holds_password(value)}
