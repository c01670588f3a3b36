"""Tokens of a real issuer over HTTP, and the guard that asks for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.storage import Storage
from jobs.spec import ServingSpec
from serve import callers
from serve import issuer as issuer_
from serve.callers import Callers, Either, RefusedError
from serve.issuer import Issuer, KeysAwayError

from .issuing import LocalIssuer, issuer, pair, public
from .test_app import PREDICT, Server
from .test_guard import BOUNDS, ONE, Front


@pytest.fixture
def local() -> Iterator[LocalIssuer]:
    with issuer() as made:
        yield made


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def who(known: Issuer, token: str) -> issuer_.Bearer:
    return asyncio.run(known.who(token))


def refusal(known: Issuer, token: str) -> str:
    with pytest.raises(RefusedError) as caught:
        who(known, token)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_a_token_says_whose_it_is(local: LocalIssuer, kind: str) -> None:
    key = pair(kind)
    local.keys = [public(key, "one", kind)]
    found = who(Issuer(local.spec()), local.token(key, kind))
    assert (found.name, found.models) == ("the shop", None)
    assert found.may_ask("anything")


def test_what_is_wrong_with_a_token_is_said(local: LocalIssuer) -> None:
    known, now = Issuer(local.spec(leeway_seconds=5)), time.time()
    stranger = pair("RS256")
    for token, said in [
        (local.token(exp=now - 60), "it has expired"),
        (local.token(nbf=now + 60), "it is not good yet"),
        (local.token(aud="another"), "it is for another audience"),
        (local.token(aud=["x", "y"]), "it is for another audience"),
        (local.token(iss="https://elsewhere.example"), "it is another issuer's"),
        (local.token(iss=local.url + "/"), "it is another issuer's"),
        (local.token(exp=None), "exp, iss and aud are needed"),
        (local.token(aud=None), "exp, iss and aud are needed"),
        (local.token(iss=None), "exp, iss and aud are needed"),
        (local.token(stranger), "its signature is wrong"),
        (local.token(kind="RS512"), "its algorithm is not allowed"),
        (local.token(kind="PS256"), "its algorithm is not allowed"),
        (local.token(headers={"kid": "../../etc/passwd"}), "its key is none of the issuer's"),
        ("a" * 20_000, "it is too long"),
    ]:
        assert refusal(known, token) == f"the token is not good: {said}"
    assert who(known, local.token(exp=now - 1)).name == "the shop"  # within the leeway
    assert who(known, local.token(aud=["x", "rehone"])).name == "the shop"


def signed_with(secret: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """HS256 by hand: the library refuses to sign with a public key."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    said = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{said}.{part(hmac.new(secret, said.encode(), hashlib.sha256).digest())}"


def test_algorithms_are_not_the_tokens_to_choose(local: LocalIssuer) -> None:
    known, one = Issuer(local.spec()), local.private.public_key()
    forms = [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.PEM, PublicFormat.PKCS1)]
    forms.append((Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    secrets = [one.public_bytes(*form) for form in forms] + [json.dumps(local.keys[0]).encode(), b""]
    for secret in secrets:
        token = signed_with(secret, {"alg": "HS256", "typ": "JWT", "kid": "one"}, local.claims())
        assert refusal(known, token) == "the token is not good: its algorithm is not allowed"
    for name in ("none", "None", "NONE"):
        token = signed_with(b"", {"alg": name, "kid": "one"}, local.claims())
        for unsigned in (token, token.rsplit(".", 1)[0] + "."):
            assert "not good" in refusal(known, unsigned)
    assert who(known, local.token()).name == "the shop"


def test_a_shared_secret_in_a_jwks_verifies_nothing(local: LocalIssuer) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    shared = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
    local.keys += [
        shared,
        {"kty": "RSA", "kid": "broken"},
        "no key",
        public(pair("RS256"), "enc", "RS256") | {"use": "enc"},
    ]
    known = Issuer(local.spec())
    for kid in ("shared", "broken", "enc"):
        assert "none of the issuer's" in refusal(
            known, signed_with(secret, {"alg": "HS256", "kid": kid}, local.claims())
        )
    assert who(known, local.token()).name == "the shop"


def test_keys_rotate_without_a_restart(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    assert who(known, local.token()).name == "the shop"
    second = pair("ES256")
    local.keys = [public(second, "two", "ES256")]
    new = local.token(second, "ES256", {"kid": "two"})
    assert "none of the issuer's" in refusal(known, new)  # asked a moment ago
    assert local.asked == 1
    clock.now += 11
    assert who(known, new).name == "the shop"
    assert "none of the issuer's" in refusal(known, local.token())
    assert local.asked == 2


def test_tokens_of_made_up_keys_do_not_flood_the_issuer(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)

    async def flood() -> list[object]:
        tokens = [local.token(headers={"kid": f"made up {n}"}) for n in range(50)]
        return await asyncio.gather(*(known.who(token) for token in tokens), return_exceptions=True)

    assert all(isinstance(made, RefusedError) for made in asyncio.run(flood()))
    assert local.asked == 1
    clock.now += 11
    asyncio.run(flood())
    assert local.asked == 2


def test_while_the_issuer_is_away_known_keys_go_on(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    who(known, local.token())
    local.away = True
    clock.now += 1000

    async def meanwhile() -> None:
        await known.who(local.token())
        assert known._asking is not None  # beside the request
        await known._asking

    asyncio.run(meanwhile())
    assert local.asked == 2
    assert who(known, local.token()).name == "the shop"
    with pytest.raises(KeysAwayError, match=r"the keys of .* cannot be read: .* answered 500 \(try again\)"):
        who(known, local.token(headers={"kid": "new"}))
    local.away, clock.now = False, clock.now + 11
    assert "none of the issuer's" in refusal(known, local.token(headers={"kid": "new"}))


def test_a_key_that_the_issuer_takes_back_is_worth_nothing_in_five_minutes(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    who(known, local.token())
    local.keys, clock.now = [], clock.now + 301

    async def looks() -> None:
        await known.who(local.token())
        await asyncio.sleep(0.2)
        await known.who(local.token())

    with pytest.raises(RefusedError):
        asyncio.run(looks())


def test_who_hangs_up_does_not_end_the_question_of_others(local: LocalIssuer) -> None:
    known = Issuer(local.spec())

    async def two() -> issuer_.Bearer:
        first = asyncio.create_task(known.who(local.token()))
        second = asyncio.create_task(known.who(local.token()))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(two()).name == "the shop"
    assert local.asked == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys": 3}', b" " * (2**20 + 1)])
def test_what_is_no_jwks_is_an_issuer_that_is_away(body: bytes, local: LocalIssuer) -> None:
    async def fetch() -> bytes:
        return body

    with pytest.raises(KeysAwayError):
        who(Issuer(local.spec(), fetch), local.token())


def test_a_jwks_is_fetched_from_its_own_address_and_bounded(local: LocalIssuer) -> None:
    local.keys = ["x" * 2**20]
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        asyncio.run(issuer_.fetched(f"{local.url}/jwks.json"))


def test_one_key_needs_no_name(local: LocalIssuer) -> None:
    known = Issuer(local.spec())
    assert who(known, local.token(headers={})).name == "the shop"
    local.keys.append(public(pair("RS256"), "two", "RS256"))
    assert "none of the issuer's" in refusal(Issuer(local.spec()), local.token(headers={}))


@pytest.mark.parametrize(
    ("claim", "may"),
    [
        ("openid model:m model:n", True),
        (["model:m"], True),
        ("model:*", True),
        ("model:mm m", False),
        ("*", False),
        ("", False),
        (None, False),
        ({"model:m": 1}, False),
        ([["model:m"], 3], False),
    ],
)
def test_models_are_those_of_a_claim(local: LocalIssuer, claim: object, may: bool) -> None:
    known = Issuer(local.spec(models_claim="scope", models_prefix="model:"))
    assert who(known, local.token(scope=claim)).may_ask("m") is may


@given(st.text(max_size=300))
def test_no_text_at_all_is_a_fault_of_the_server(token: str) -> None:
    async def fetch() -> bytes:
        return b'{"keys": []}'

    spec = LocalIssuer.spec.__get__(type("Here", (), {"url": "http://127.0.0.1:1"})())()
    with pytest.raises(RefusedError):
        asyncio.run(Issuer(spec, fetch).who(token))


def test_the_guard_asks_for_tokens_or_for_keys(local: LocalIssuer, tmp_path) -> None:
    storage = Storage(str(tmp_path / "store"))
    _, secret = callers.create(storage, "a key")
    known = Issuer(local.spec(models_claim="models"))
    front = Front(Server(tmp_path / "spool"), BOUNDS, Either(Callers(storage, 1), known))

    def ask(secret: str) -> tuple[int, Any]:
        answer = front.ask("POST", PREDICT, json=ONE, headers={"Authorization": f"Bearer {secret}"})
        return answer.status_code, answer.json().get("detail")

    good = local.token(models=["m"])
    assert (ask(good)[0], ask(secret)[0]) == (200, 200)
    assert [json.loads(line)["caller"] for line in front.lines] == ["the shop", "a key"]
    assert good not in "".join(front.lines)
    assert ask(local.token(models=["n"])) == (403, "this caller may not ask m")
    assert ask(local.token(models=["m"], exp=1)) == (401, "the token is not good: it has expired")
    assert ask("nonsense")[0] == 401
    local.away, known._asked = True, float("-inf")
    status, said = ask(local.token(models=["m"], headers={"kid": "new"}))
    assert (status, "cannot be read" in said) == (503, True)
    assert ask(good)[0] == 200


def test_a_spec_names_its_issuer_and_no_shared_secret(local: LocalIssuer) -> None:
    jwt_ = local.spec().model_dump()
    assert ServingSpec(auth="jwt", jwt=jwt_).jwt is not None
    for wrong, said in [
        ({"auth": "jwt"}, "auth: jwt goes with a part jwt"),
        ({"auth": "keys", "jwt": jwt_}, "auth: keys goes without a part jwt"),
        ({"auth": "jwt", "jwt": jwt_ | {"jwks_url": "http://issuer.example/jwks"}}, "is no https URL"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": ["HS256"]}}, "Input should be 'RS256'"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": ["none"]}}, "Input should be 'RS256'"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": []}}, "at least 1 item"),
    ]:
        with pytest.raises(ValidationError, match=said):
            ServingSpec.model_validate(wrong)
