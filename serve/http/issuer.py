"""Who may ask: bearers of signed tokens (JWT, RFC 7519) of one issuer, whose public keys are read from its JWKS.

Signatures are asymmetric only: what verifies a token can make none. Keys are read when the first token names one that
is not known, and again every five minutes, beside the requests; before one, when nobody has asked for twice as long.
While the issuer cannot be reached the keys that are known go on to be good for `away_seconds`; then, and for a token of
another key at once, whoever asks is told to come again. Held to RFC 8725 (best current practices): algorithms are the
spec's and each key's own, never the token's to choose, and keys that a token brings along (`jwk`, `jku`, `x5u`) are not
looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from cluster.errors import RehoneError
from jobs.spec import JwtSpec

from .callers import Callers, Either, Known, RefusedError

log = logging.getLogger(__name__)

_FRESH = 300.0  # seconds after which keys are read again
_PAUSE = 10.0  # seconds at least between two questions to the issuer, whatever tokens come
_PATIENCE = 5.0  # seconds for one
_MOST_BYTES = 2**20  # of a JWKS
_LONGEST = 16_384  # characters of a token
_NAME = 100  # characters of a subject that are written down
_ALL = "*"
_LEAST_BITS = 2048  # of an RSA key, as RFC 7518 (3.3) has it
_FITTING = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""By a key's type and curve (RFC 7518, 8037); none for a symmetric one."""
_UNREADABLE = (jwt.PyJWTError, TypeError, OverflowError)  # such as an `exp` that is a list or endless

_FAULTS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not good yet"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is another issuer's"),
    (jwt.MissingRequiredClaimError, "exp, iss and aud are needed"),
    (jwt.InvalidAlgorithmError, "its algorithm is not allowed"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)
"""In words of our own: the library's may repeat what a stranger wrote."""


class KeysAwayError(RehoneError):
    """The issuer cannot be asked for the key that a token names."""


@dataclass(frozen=True)
class Bearer:
    """Whose a good token is. `models` are those it may ask, None for all."""

    id: str
    name: str
    models: frozenset[str] | None

    def may_ask(self, model: str) -> bool:
        return self.models is None or model in self.models or _ALL in self.models


@dataclass(frozen=True)
class PublicKey:
    """One key of a JWKS, and the algorithms that it verifies here."""

    key: Any
    algorithms: tuple[str, ...]


Fetch = Callable[[], Awaitable[bytes]]


class Issuer:
    """Verifies tokens. `fetch` gives the JWKS; it may raise httpx.HTTPError, httpx.InvalidURL, OSError, ValueError."""

    def __init__(self, spec: JwtSpec, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._fetch = fetch or (lambda: fetched(spec.jwks_url))
        self._keys: dict[str | None, PublicKey] = {}
        self._asked, self._away = float("-inf"), False
        self._read = float("-inf")  # when the issuer last answered
        self._asking: asyncio.Task[None] | None = None

    async def who(self, secret: str) -> Bearer:
        """Whose the token is. Raises RefusedError, KeysAwayError."""
        key = await self._key(_kid(secret))
        try:
            claims = jwt.decode(
                secret,
                key.key,
                algorithms=key.algorithms,
                audience=self._spec.audience,
                issuer=self._spec.issuer,
                leeway=self._spec.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except _UNREADABLE as error:
            raise RefusedError(_refusal(error)) from None
        return _bearer(claims, self._spec)

    async def _key(self, kid: str | None) -> PublicKey:
        found, since = self._find(kid), self._clock() - self._asked
        if found is not None and since <= 2 * _FRESH and self._holds():
            if since > _FRESH:
                self._question()  # beside the request
            return found
        if since >= _PAUSE or self._asking is not None:
            # One question, however many wait for it; who hangs up meanwhile does not end it.
            await asyncio.shield(self._question())
            found = self._find(kid)
        if found is not None and self._holds():
            return found
        if self._away:
            # Where and why is the log's to say: who asks may be anybody.
            raise KeysAwayError("the keys of the tokens' issuer cannot be read now", mend="try again")
        raise RefusedError("the token is not good: its key is none of the issuer's")

    def _holds(self) -> bool:
        """Whether the keys that are known are still to be relied on: the issuer may have taken them back."""
        return self._clock() - self._read <= self._spec.away_seconds

    def _find(self, kid: str | None) -> PublicKey | None:
        """A token that names no key is verified by the only one, where there is just one."""
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _question(self) -> asyncio.Task[None]:
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def _ask(self) -> None:
        self._asked = self._clock()
        try:
            self._keys, self._away = keys(await self._fetch(), self._spec.algorithms), False
            self._read = self._asked
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._away, why = True, str(error) or type(error).__name__
            known = f"those known are good for {self._spec.away_seconds:g} s after they were read"
            log.error("the keys of %s could not be read; %s: %s", self._spec.issuer, known, why)  # noqa: TRY400 - a line
        finally:
            self._asking = None


def known(spec: JwtSpec | None, keys: Callers | None) -> Known | None:
    """What a server asks who somebody is; None where it asks nobody."""
    if spec is None:
        return keys
    return Issuer(spec) if keys is None else Either(keys, Issuer(spec))


async def fetched(url: str) -> bytes:
    """A JWKS of at most 1 MiB, in five seconds, from no other address.

    Raises httpx.HTTPError, httpx.InvalidURL, OSError, ValueError.
    """
    body = b""
    async with (
        asyncio.timeout(_PATIENCE),
        httpx.AsyncClient(timeout=_PATIENCE) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answered {answer.status_code}")
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _MOST_BYTES:
                raise ValueError(f"{url} sends more than {_MOST_BYTES:,} bytes")
    return body


def keys(jwks: bytes, algorithms: tuple[str, ...]) -> dict[str | None, PublicKey]:
    """By key id. What cannot verify a signature of these algorithms is left out. Raises ValueError for no JWKS."""
    listed = json.loads(jwks)
    listed = listed.get("keys") if isinstance(listed, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JWKS")  # noqa: TRY004 - of a document, not of a caller
    made = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        fitting = _algorithms(one, algorithms)
        if not fitting:
            continue
        try:
            key = _read(one, fitting[0])
        except ValueError as error:
            log.warning("a key of the issuer's is not taken: %s: %s", repr(one.get("kid"))[:_NAME], error)
            continue
        made[one.get("kid")] = PublicKey(key, fitting)
    return made


def _algorithms(key: dict[str, Any], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are allowed, of the key's own type and curve."""
    own = next((names for kind, names in _FITTING.items() if kind == (key.get("kty"), key.get("crv"))), ())
    return tuple(name for name in allowed if name in own and key.get("alg") in {None, name})


def _read(key: dict[str, Any], algorithm: str) -> Any:
    """Raises ValueError for a key that is not to be relied on."""
    if not isinstance(key.get("kid"), str | None):
        raise ValueError("its id is no text")  # noqa: TRY004 - of a document, not of a caller
    if "d" in key:
        raise ValueError("everybody can read its private half")
    try:
        made = jwt.PyJWK(key, algorithm).key
    except jwt.PyJWTError:
        raise ValueError("it cannot be read") from None
    if key["kty"] == "RSA" and made.key_size < _LEAST_BITS:
        raise ValueError(f"it has {made.key_size} bits, fewer than {_LEAST_BITS}")
    return made


def _kid(token: str) -> str | None:
    """What key a token names. Raises RefusedError for what is no token."""
    if len(token) > _LONGEST:
        raise RefusedError("the token is not good: it is too long")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        raise RefusedError("a token is needed: `Authorization: Bearer ...`") from None
    return None if kid is None else str(kid)


def _refusal(error: Exception) -> str:
    said = next((words for kind, words in _FAULTS if isinstance(error, kind)), "it cannot be read")
    return f"the token is not good: {said}"


def _bearer(claims: dict[str, Any], spec: JwtSpec) -> Bearer:
    subject = str(claims.get("sub") or claims.get("client_id") or claims.get("azp") or "unnamed")
    # Of any length, and remembered: a rate is counted by it.
    number = hashlib.sha256(subject.encode(errors="surrogatepass")).hexdigest()
    return Bearer(f"jwt {number}", subject[:_NAME], _models(claims, spec))


def _models(claims: dict[str, Any], spec: JwtSpec) -> frozenset[str] | None:
    """A claim is a list, or names parted by spaces as OAuth's `scope` has them; without it a token may ask nothing."""
    if spec.models_claim is None:
        return None
    said = claims.get(spec.models_claim, [])
    names = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    begun = [name for name in names if isinstance(name, str) and name.startswith(spec.models_prefix)]
    return frozenset(name.removeprefix(spec.models_prefix) for name in begun)
