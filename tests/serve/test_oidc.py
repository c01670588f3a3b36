"""Tokens of a provider that others run: panva's oidc-provider, by npm, where there is node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from jwt.algorithms import RSAAlgorithm

from cluster.session import free_port
from jobs.spec import JwtSpec
from serve.http.issuer import Issuer

from .issuing import AUDIENCE, pair
from .test_app import PREDICT, Server
from .test_guard import BOUNDS, Front
from .test_issuer import Clock

pytestmark = pytest.mark.long
PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest) -> Path:
    """The folder with the script and its package, which pytest's cache keeps."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node, no npm: the provider is written in JavaScript")
    folder = request.config.cache.mkdir(PACKAGE.replace("@", "-"))
    if not (folder / "node_modules" / "oidc-provider").is_dir():
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGE} could not be installed: {done.stderr.strip().splitlines()[-1]}")
    shutil.copy(SCRIPT, folder)
    return folder


class Provider:
    """One address, at which it runs with the keys that it is given; it signs with the first."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self, *keys: Any) -> Iterator[None]:
        jwks = {"keys": [json.loads(RSAAlgorithm.to_jwk(key)) | {"use": "sig", "alg": "RS256"} for key in keys]}
        asked = json.dumps({"port": self.port, "issuer": self.url, "jwks": jwks})
        command = ["node", SCRIPT.name, asked]
        with subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
                yield
            finally:
                process.kill()

    def told(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = httpx.get(f"{self.url}/.well-known/openid-configuration").json()
        return found

    def token(self, scope: str = "model:m") -> str:
        """By client credentials (RFC 6749, 4.4) for a resource (RFC 8707), as a JWT (RFC 9068)."""
        asked = {"grant_type": "client_credentials", "scope": scope, "resource": "https://rehone.example"}
        answer = httpx.post(self.told()["token_endpoint"], data=asked, auth=("the-shop", "its-secret"))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


def test_tokens_of_a_real_provider_open_their_models_while_its_keys_rotate(installed: Path, tmp_path: Path) -> None:
    provider, clock, old, new = Provider(installed), Clock(), pair("RS256"), pair("RS256")
    with provider.running(old):
        spec = JwtSpec(
            issuer=provider.told()["issuer"],
            audience=AUDIENCE,
            jwks_url=provider.told()["jwks_uri"],
            models_claim="scope",
            models_prefix="model:",
        )
        front = Front(Server(tmp_path), BOUNDS, Issuer(spec, clock=clock))

        def status(token: str) -> int:
            return front.ask(
                "POST", PREDICT, json={"inputs": "a"}, headers={"Authorization": f"Bearer {token}"}
            ).status_code

        first, other = provider.token(), provider.token("model:other")
        assert (status(first), status(other), status(provider.token("model:m model:other"))) == (200, 403, 200)
        assert status(first[:-4] + first[-4:].swapcase()) == 401
        assert "the-shop" in front.lines[-2]
    assert status(first) == 200, "while it is away"
    with provider.running(new, old):
        clock.now += 20
        second = provider.token()
        assert (status(second), status(first)) == (200, 200)
    with provider.running(new):
        clock.now += 1000
        assert (status(second), status(first)) == (200, 401)
