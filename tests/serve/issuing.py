"""An issuer of tokens: key pairs that were made here, and an HTTP server with their public halves."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from jobs.spec import JwtSpec

from .listening import Quiet, listening

AUDIENCE = "rehone"
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}


def pair(kind: str) -> Any:
    """A private key for an algorithm."""
    if kind.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(_CURVES[kind]()) if kind in _CURVES else ed25519.Ed25519PrivateKey.generate()


@cache
def _own() -> Any:
    """Made once: a key takes longer than all that is tested with it."""
    return pair("RS256")


def public(key: Any, kid: str | None, kind: str) -> dict[str, Any]:
    """A key's JWK."""
    of = RSAAlgorithm if kind.startswith(("RS", "PS")) else ECAlgorithm if kind in _CURVES else OKPAlgorithm
    made: dict[str, Any] = of.to_jwk(key.public_key(), as_dict=True)
    return made | {"use": "sig", "alg": kind} | ({} if kid is None else {"kid": kid})


def part(value: bytes) -> str:
    """Of a token, as RFC 7515 has it."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class LocalIssuer:
    """`keys` are the JWKs that it shows now; `asked` counts who wanted to see them, `moved` is where it sends them."""

    def __init__(self, url: str) -> None:
        self.url, self.asked, self.away = url, 0, False
        self.moved: str | None = None
        self.private = _own()
        self.keys = [public(self.private, "one", "RS256")]

    def spec(self, **more: Any) -> JwtSpec:
        return JwtSpec(issuer=self.url, audience=AUDIENCE, jwks_url=f"{self.url}/jwks.json", **more)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Of a good token; a claim that is None is left out."""
        made = {"iss": self.url, "aud": AUDIENCE, "exp": time.time() + 600, "sub": "the shop"} | more
        return {name: value for name, value in made.items() if value is not None}

    def token(
        self, key: Any = None, kind: str = "RS256", headers: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        return jwt.encode(
            self.claims(**claims), key or self.private, kind, dict({"kid": "one"} if headers is None else headers)
        )

    def signed(self, header: Any, claims: Any) -> str:
        """A good RS256 signature of anything: the library signs nothing that is wrong."""
        said = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
        return f"{said}.{part(self.private.sign(said.encode(), PKCS1v15(), SHA256()))}"


@contextmanager
def issuer() -> Iterator[LocalIssuer]:
    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            made.asked += 1
            body = b"down for the night" if made.away else json.dumps({"keys": made.keys}).encode()
            self.send_response(302 if made.moved else 500 if made.away else 200)
            if made.moved:
                self.send_header("Location", made.moved)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as url:
        made = LocalIssuer(url)
        yield made
