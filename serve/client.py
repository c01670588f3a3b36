"""A small HTTP client of our own API, for the command line and the demo.

It sends a request again while the server is away or busy: a proxy or a node that dies takes what is on its way with it,
and nobody but the client can ask anew. A prediction that was written down and never arrived is then in the log beside
the one that did, under an id that nobody was told.

Where the server asks who one is, the client says so by an API key or an issuer's token, as `key` finds it for the
command line. It goes into a header and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from cluster.errors import ClusterError, UserError
from cluster.nodes.access import bearer

KEY, KEY_FILE = "REHONE_API_KEY", "REHONE_API_KEY_FILE"

_AGAIN = frozenset({429, 500, 502, 503})  # 500 is also what HAProxy says when no replica is left
_FIRST, _LONGEST = 0.1, 2.0  # seconds until a request is sent again, doubled each time


_MENDS = {
    401: f"set {KEY}, or {KEY_FILE}, to a key (`rehone keys create`) or a token of the server's issuer",
    403: f"{KEY} is good for other models; one for this comes of `rehone keys create NAME --model MODEL`",
}


def key(environment: Mapping[str, str] = os.environ) -> str | None:
    """The key or token to ask servers with: REHONE_API_KEY, else what is in the file that REHONE_API_KEY_FILE names.

    Raises UserError for what cannot be read, or sent.
    """
    named = environment.get(KEY_FILE)
    if environment.get(KEY) or not named:
        return _sendable(environment.get(KEY, ""), KEY)
    where = f"{KEY_FILE}={named}"
    try:
        held = Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # Not what was read: of a file that is no text it may be the secret.
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"cannot be read: {why}", where=where, mend="name the file with the key") from None
    return _sendable(held, where)


def _sendable(held: str, where: str) -> str | None:
    found = held.strip()
    if not (found.isascii() and found.isprintable()):
        raise UserError("is no key: it is not a line of ASCII", where=where)
    return found or None


class Client:
    """One model at one server. Raises ClusterError when nothing answers for `patience` seconds, UserError when the
    request is refused. `key` is an API key or a token, where the server asks for one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        timeout: float = 30.0,
        patience: float = 20.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        key: str | None = None,
    ) -> None:
        self.url, self.model, self._patience, self._sleep = url.rstrip("/"), model, patience, sleep
        self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=transport, headers=bearer(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def predict(self, inputs: Sequence[str]) -> dict[str, Any]:
        """`{"model", "version", "predictions": [{"prediction_id", "label", "confidence", "scores"}]}`."""
        return self._post(f"/v1/models/{self.model}/predict", {"inputs": list(inputs)})

    def feedback(self, labels: dict[str, str]) -> dict[str, Any]:
        """True labels by prediction id."""
        rows = [{"prediction_id": key, "label": label} for key, label in labels.items()]
        return self._post("/v1/feedback", {"feedback": rows})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._answer(path, body)
        if 400 <= answer.status_code < 500:  # noqa: PLR2004 - HTTP's client errors
            mend = _MENDS.get(answer.status_code, "")
            raise UserError(f"{answer.status_code}: {_detail(answer)}", where=self.url + path, mend=mend)
        if answer.is_error:
            raise ClusterError(f"{answer.status_code}: {_detail(answer)}", where=self.url + path)
        tree: dict[str, Any] = answer.json()
        return tree

    def _answer(self, path: str, body: dict[str, Any]) -> httpx.Response:
        until, pause = time.monotonic() + self._patience, _FIRST
        while True:
            answer, fault = self._asked(path, body)
            wait = max(pause, _told(answer))
            if (answer is not None and not _away(answer)) or time.monotonic() + wait > until:
                break
            self._sleep(wait)
            pause = min(2 * pause, _LONGEST)
        if answer is None:
            raise ClusterError(f"no server answers: {fault}", where=self.url, mend="`rehone serve SPEC`")
        return answer

    def _asked(self, path: str, body: dict[str, Any]) -> tuple[httpx.Response | None, str]:
        try:
            return self._http.post(path, json=body), ""
        except httpx.TransportError as error:
            return None, str(error)


def _away(answer: httpx.Response) -> bool:
    # HAProxy that has just come back knows no application yet, and says 404 in plain text.
    return answer.status_code in _AGAIN or (answer.status_code == 404 and not _is_json(answer))  # noqa: PLR2004


def _told(answer: httpx.Response | None) -> float:
    """Seconds that the server asks to wait."""
    said = "" if answer is None else answer.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else 0.0


def _is_json(answer: httpx.Response) -> bool:
    kind: str = answer.headers.get("Content-Type", "")
    return kind.startswith("application/json")


def _detail(answer: httpx.Response) -> str:
    return str(answer.json().get("detail", answer.text)) if _is_json(answer) else answer.text[:200]
